// A process without Python that runs a saved TorchScript module whose layers are ops of quintil; test_torchscript.py
// compares what it prints.
//
//   script_runner MODULE.pt SEED
//
// The module carries its batch as the buffers `images` and `labels`. Forward, cross-entropy and backward run once after
// at::manual_seed(SEED). Printed: the instruction set, then a line `logits` and one line per parameter with its
// gradient, each a name and the bytes of the float32 tensor in hexadecimal.
#include "csrc/quintil.h"

#include <ATen/Context.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void print(const std::string& name, const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const auto* bytes = static_cast<const uint8_t*>(dense.const_data_ptr());
  std::printf("%s ", name.c_str());
  for (size_t i = 0; i < dense.nbytes(); ++i) std::printf("%02x", bytes[i]);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: script_runner MODULE.pt SEED\n");
    return 2;
  }
  torch::jit::Module module = torch::jit::load(argv[1]);
  const at::Tensor images = module.attr("images").toTensor(), labels = module.attr("labels").toTensor();
  at::manual_seed(std::strtoull(argv[2], nullptr, 10));
  const at::Tensor logits = module.forward({images}).toTensor();
  at::cross_entropy_loss(logits, labels).backward();
  std::printf("isa %s\n", quintil::active_isa().c_str());
  print("logits", logits.detach());
  for (const auto& parameter : module.named_parameters()) print(parameter.name, parameter.value.grad());
  return 0;
}
