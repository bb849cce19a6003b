// Files of named tensors in the safetensors format, as python/quintil/nn/tensor_file.py writes them.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "csrc/storage/json.h"

namespace quintil::storage {

struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  Json manifest;
};

// ValueError if the file is absent, damaged or of another program; `op` starts the message.
TensorFile read_tensors(const char* op, const std::string& path);

}  // namespace quintil::storage
