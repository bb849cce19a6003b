// load_quantized: a scripted module takes the values of a file that quintil.save_quantized wrote. What stands in the
// file: python/quintil/nn/storage.py; how a layer's weight follows from its codes: `unpack` of the layers there.
#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <map>
#include <stdexcept>

#include "csrc/quintil.h"
#include "csrc/storage/tensor_file.h"

namespace quintil {

namespace {

using at::Tensor;
using storage::Json;
using storage::TensorFile;
using torch::jit::Module;

constexpr const char* kOp = "load_quantized";
constexpr int64_t kFormat = 1;
constexpr double kFaint = 1e-3;  // of a step: rounds to 0

using Tensors = std::map<std::string, Tensor>;

std::string joined(const std::string& name, const std::string& part) {
  return name.empty() ? part : name + "." + part;
}

Tensor taken(Tensors& tensors, const std::string& name) {
  const auto node = tensors.extract(name);
  if (node.empty()) throw std::invalid_argument("no tensor '" + name + "'");
  return node.mapped();
}

// Codes of b bits from a stream of bits, the lowest bit of each first.
Tensor unpacked(const Tensor& packed, const Json& entry) {
  const int64_t bits = entry.at("bits").integer();
  const bool is_signed = entry.at("signed").boolean();
  std::vector<int64_t> shape;
  for (const Json& size : entry.at("shape").items()) shape.push_back(size.integer());
  Tensor codes = at::empty(shape, is_signed ? at::kChar : at::kByte);
  const int64_t n = codes.numel(), bytes = packed.numel();
  if (bits < 1 || bits > 8 || packed.scalar_type() != at::kByte || bytes != (n * bits + 7) / 8) {
    throw std::invalid_argument("codes that do not fit their shape");
  }
  const auto* in = packed.const_data_ptr<uint8_t>();
  auto* out = static_cast<uint8_t*>(codes.mutable_data_ptr());
  const int unused = static_cast<int>(8 - bits);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = i * bits, byte = first / 8;
    const int word = in[byte] | (byte + 1 < bytes ? in[byte + 1] << 8 : 0);
    const auto high = static_cast<uint8_t>((word >> (first % 8)) << unused);  // the code in the highest bits
    out[i] =
        is_signed ? static_cast<uint8_t>(static_cast<int8_t>(high) >> unused) : static_cast<uint8_t>(high >> unused);
  }
  return codes;
}

// A float weight with the codes, step, sign and range that HDQT stored.
Tensor hadamard_weight(const Tensor& codes, const Tensor& scale, const Tensor& peak) {
  Tensor weight = (codes * scale).flatten();
  const Tensor sizes = codes.flatten().to(at::kShort).abs();
  Tensor largest = weight[sizes.argmax().item<int64_t>()];
  largest.copy_(peak.copysign(largest));
  if (codes.scalar_type() == at::kChar && !(weight < 0).any().item<bool>()) {
    weight[sizes.argmin().item<int64_t>()].copy_(scale * -kFaint);
  }
  return weight.reshape(codes.sizes());
}

// Numbers on VecQ's levels, with a length for all, for each x[i], or for each run of x[i].
Tensor level_values(const Tensor& codes, const Tensor& scale) {
  const Tensor levels = codes + 0.5;
  if (scale.dim() == 0) return levels * scale;
  const int64_t lengths = scale.numel();
  if (scale.dim() > 2 || codes.dim() == 0 || scale.size(0) != codes.size(0) || lengths == 0 ||
      codes.numel() % lengths != 0) {
    throw std::invalid_argument(c10::str("a scale of ", scale.sizes(), " for codes of ", codes.sizes()));
  }
  std::vector<int64_t> runs = scale.sizes().vec();
  runs.push_back(codes.numel() / lengths);
  return (levels.reshape(runs) * scale.unsqueeze(-1)).reshape(codes.sizes());
}

// The packed tensors of one parameter, which leave the file.
Tensors taken_parts(Tensors& tensors, const std::string& prefix, const Json& entry) {
  Tensors parts;
  for (const Json& part : entry.at("parts").items()) parts[part.text()] = taken(tensors, joined(prefix, part.text()));
  const Tensor codes = unpacked(taken(parts, "codes"), entry);
  parts["codes"] = codes;
  return parts;
}

Tensor scale_of(const Tensors& parts, const std::string& parameter) {
  const auto scale = parts.find("scale");
  if (scale == parts.end()) throw std::invalid_argument("no scale for the codes of '" + parameter + "'");
  return scale->second;
}

// A parameter of VecQ, and its lengths, which its quantiser keeps.
void put_levels(Tensors& tensors, const std::string& parameter, const Tensors& parts) {
  const Tensor scale = scale_of(parts, parameter);
  tensors[parameter] = level_values(parts.at("codes"), scale);
  const std::string lengths = parameter + "_quantizer.alpha";
  taken(tensors, lengths);
  tensors[lengths] = scale;
}

// The padding row of a table keeps its numbers.
void put_padding(Tensor& table, const Tensor& row, const Module& layer, const std::string& name) {
  const c10::IValue place = layer.attr("padding_idx", c10::IValue());
  TORCH_CHECK_VALUE(place.isInt(), kOp, ": expected '", name, "' to have a padding_idx, got none");
  const int64_t i = place.toInt();
  if (table.dim() != 2 || i < 0 || i >= table.size(0) || row.sizes() != table.sizes().slice(1)) {
    throw std::invalid_argument(c10::str("a padding row of ", row.sizes(), " for codes of ", table.sizes()));
  }
  table[i].copy_(row);
}

// Puts the float weight of one packed layer in the place of its parts.
void put_weight(TensorFile& file, const std::string& name, const Json& entry, const Module& layer) {
  const std::string weight = joined(name, "weight");
  const Tensors parts = taken_parts(file.tensors, name, entry);
  const Tensor& codes = parts.at("codes");
  if (parts.contains("peak")) {
    file.tensors[weight] = hadamard_weight(codes, scale_of(parts, weight), parts.at("peak"));
  } else if (parts.contains("scale")) {
    put_levels(file.tensors, weight, parts);
    if (parts.contains("padding")) put_padding(file.tensors[weight], parts.at("padding"), layer, name);
  } else {
    const std::string stored = "weight_quantizers." + std::to_string(entry.at("bits").integer()) + ".step";
    const auto step = file.tensors.find(joined(name, stored));
    if (step == file.tensors.end()) throw std::invalid_argument("no step for the codes of '" + name + "'");
    std::vector<int64_t> column(std::max<int64_t>(codes.dim(), 1), 1);
    column[0] = -1;
    file.tensors[weight] = codes * step->second.reshape(column);
  }
}

// All packed parameters; the module is the architecture, whose schemes were found to be those of the file.
void put_parameters(TensorFile& file, const Module& module) {
  std::map<std::string, Module> layers;
  for (const auto& [name, part] : module.named_modules()) layers.emplace(name, part);
  for (const auto& [name, entry] : file.manifest.at("packed").members()) {
    const auto layer = layers.find(name);
    if (layer == layers.end()) throw std::invalid_argument("codes of '" + name + "' without its scheme");
    put_weight(file, name, entry, layer->second);
  }
  if (!file.manifest.members().contains("others")) return;
  for (const auto& [name, entries] : file.manifest.at("others").members()) {
    for (const auto& [parameter, entry] : entries.members()) {
      const std::string full = joined(name, parameter);
      put_levels(file.tensors, full, taken_parts(file.tensors, full, entry));
    }
  }
}

// A scheme as a layer of the module has it, and what a file means by the fields that it does not have.
struct OwnScheme {
  std::string text;
  Json defaults = Json(Json::Object());

  explicit OwnScheme(const Module& layer) : text(layer.attr("scheme_text").toStringRef()) {
    if (layer.hasattr("scheme_defaults")) defaults = storage::parse_json(layer.attr("scheme_defaults").toStringRef());
  }

  // A file of an earlier version lacks the fields that came later.
  bool is_that_of(const Json& stored) const {
    Json::Object fields = stored.members();
    if (!fields.contains("scheme")) return false;
    for (const auto& [field, value] : defaults.members()) fields.emplace(field, value);
    return storage::parse_json(text) == Json(std::move(fields));
  }
};

// The scheme of every swapped layer is that of the file, and both hold the same swapped layers.
void check_schemes(const Module& module, const Json& schemes, const std::string& path) {
  std::map<std::string, OwnScheme> own;
  for (const auto& [name, part] : module.named_modules()) {
    if (part.hasattr("scheme_text")) own.emplace(name, part);
  }
  for (const auto& [name, scheme] : schemes.members()) {
    const auto found = own.find(name);
    TORCH_CHECK_VALUE(found != own.end(), kOp, ": expected module to hold a swapped layer '", name, "' as ", path,
                      " does, got none");
    TORCH_CHECK_VALUE(found->second.is_that_of(scheme), kOp, ": expected the scheme of '", name, "' to be that of ",
                      path, ", got ", found->second.text);
    own.erase(found);
  }
  TORCH_CHECK_VALUE(own.empty(), kOp, ": expected module to hold swapped layers where ", path, " does, got '",
                    own.begin()->first, "' too");
}

// Whether this is a quantiser that passes everything on, whose buffers are in no file.
bool passes_on(const Module& part) {
  const c10::IValue bits = part.attr("bits", c10::IValue());
  return bits.isInt() && bits.toInt() == 0;
}

// Parameters and buffers of the module, each with the value that it is to take.
std::vector<std::pair<Tensor, Tensor>> values_for(const Module& module, Tensors& values, const std::string& path) {
  std::vector<std::pair<Tensor, Tensor>> pairs;
  const auto add = [&](const std::string& name, const Tensor& own) {
    const auto node = values.extract(name);
    TORCH_CHECK_VALUE(!node.empty(), kOp, ": expected module to have the tensors of ", path, ", got another one, ",
                      name);
    TORCH_CHECK_VALUE(node.mapped().sizes() == own.sizes(), kOp, ": expected '", name, "' to be ",
                      node.mapped().sizes(), ", got ", own.sizes());
    pairs.emplace_back(own, node.mapped());
  };
  for (const auto& [name, own] : module.named_parameters()) add(name, own);
  for (const auto& [prefix, part] : module.named_modules()) {
    if (passes_on(part)) continue;
    for (const auto& [name, own] : part.named_buffers(/*recurse=*/false)) add(joined(prefix, name), own);
  }
  TORCH_CHECK_VALUE(values.empty(), kOp, ": expected module to have the tensors of ", path, ", got no ",
                    values.begin()->first);
  return pairs;
}

void load(Module& module, const std::string& path, const LayerBits& bits) {
  TensorFile file = storage::read_tensors(kOp, path);
  std::vector<std::pair<Tensor, Tensor>> pairs;
  LayerBits start;
  try {
    const int64_t format = file.manifest.at("format").integer();
    TORCH_CHECK_VALUE(format == kFormat, kOp, ": expected ", path, " to have the format ", kFormat, ", got ", format);
    check_schemes(module, file.manifest.at("schemes"), path);
    put_parameters(file, module);
    for (const auto& [name, width] : file.manifest.at("bits").members()) start.emplace_back(name, width.integer());
    pairs = values_for(module, file.tensors, path);
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, kOp, ": expected ", path, " to be a whole file of quintil, got ", error.what());
  }
  if (!start.empty()) set_bits(module, start);
  if (!bits.empty()) set_bits(module, bits);
  const at::NoGradGuard no_grad;
  // Not copy_: of a module that was saved without values, all elements of a tensor are one number in memory.
  for (auto& [own, value] : pairs) own.set_data(value.to(own.scalar_type()));
  for (Module part : module.modules()) {  // what came with lengths of VecQ lies on its levels
    if (part.hasattr("fixed")) part.setattr("fixed", part.attr("alpha").toTensor().any().item<bool>());
  }
  module.eval();
}

}  // namespace

void load_quantized(Module& module, const std::string& path, std::optional<int64_t> bits) {
  load(module, path, bits ? LayerBits{{"*", *bits}} : LayerBits());
}

void load_quantized(Module& module, const std::string& path, const LayerBits& bits) {
  load(module, path, bits);
}

}  // namespace quintil
