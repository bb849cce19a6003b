// Runs a quantised model at several widths, without Python.
//
//   switch_bits MODULE.pt MODEL.safetensors BATCH.pt BITS...
//
// MODULE.pt: quintil.nn.script(model, values=False).save(...). MODEL.safetensors: quintil.save_quantized(model, ...),
// of the same architecture. BATCH.pt: torch.save of one tensor. BITS: one width for all layers, as 4, or widths by
// layer, as "*=4,layer1=8"; without any the model runs as the file says (HDQT and VecQ have one width). One line per
// sample: the logits, with all their digits.
#include <quintil.h>

#include <torch/script.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

namespace {

at::Tensor read_batch(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return torch::jit::pickle_load(bytes).toTensor();
}

// "*=4,layer1=8" -> {{"*", 4}, {"layer1", 8}}
quintil::LayerBits parse(const std::string& text) {
  quintil::LayerBits bits;
  for (size_t start = 0, end = 0; end != text.npos; start = end + 1) {
    end = text.find(',', start);
    const std::string entry = text.substr(start, end == text.npos ? end : end - start);
    const size_t equals = entry.find('=');
    bits.emplace_back(entry.substr(0, equals), std::stoll(entry.substr(equals + 1)));
  }
  return bits;
}

void show(const at::Tensor& logits) {
  for (int64_t row = 0; row < logits.size(0); ++row) {
    for (int64_t i = 0; i < logits.size(1); ++i) std::printf("%.9g ", logits[row][i].item<double>());
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) {
    std::fprintf(stderr, "usage: switch_bits MODULE.pt MODEL.safetensors BATCH.pt BITS...\n");
    return 2;
  }
  const at::Tensor batch = read_batch(argv[3]);

  torch::jit::Module model = torch::jit::load(argv[1]);
  quintil::load_quantized(model, argv[2]);
  const torch::NoGradGuard no_grad;  // integers are multiplied where no gradient can follow
  if (argc == 4) show(model.forward({batch}).toTensor());
  for (int i = 4; i < argc; ++i) {
    const std::string bits = argv[i];
    if (bits.find('=') == bits.npos) {
      quintil::set_bits(model, std::stoll(bits));
    } else {
      quintil::set_bits(model, parse(bits));
    }
    show(model.forward({batch}).toTensor());
  }
  return 0;
} catch (const c10::Error& error) {
  std::fprintf(stderr, "%s\n", error.what_without_backtrace());
  return 1;
}
