// set_bits for scripted modules: what python/quintil/nn/widths.py does, name by name.
#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>
#include <fnmatch.h>
#include <torch/csrc/jit/api/module.h>

#include <algorithm>
#include <map>
#include <set>

#include "csrc/quintil.h"

namespace quintil {

namespace {

using torch::jit::Module;

struct Named {
  std::string name;
  Module module;
};

// Every submodule once, under its first name, in the order of definition; the module itself has the name "".
std::vector<Named> modules_of(const Module& module) {
  std::vector<Named> found;
  std::set<const void*> seen;
  for (const auto& [name, value] : module.named_modules()) {
    if (seen.insert(value._ivalue().get()).second) found.push_back({name, value});
  }
  return found;
}

bool is_layer(const Module& module) {
  return module.hasattr("input_quantizers");
}

bool is_norm(const Module& module) {
  return module.hasattr("own_key");
}

// Whether a pattern is for the layer or for a container that holds it.
bool matches(const std::string& pattern, const std::string& name) {
  for (size_t end = 0; end != name.npos; ++end) {
    end = name.find('.', end);
    if (fnmatch(pattern.c_str(), name.substr(0, end).c_str(), FNM_NOESCAPE) == 0) return true;
    if (end == name.npos) break;
  }
  return false;
}

std::string listed(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

void check_width(const Named& layer, int64_t bits) {
  const std::vector<int64_t> widths = layer.module.attr("widths").toIntVector();
  if (std::find(widths.begin(), widths.end(), bits) != widths.end()) return;
  std::vector<std::string> words;
  for (const int64_t width : widths) words.push_back(std::to_string(width));
  TORCH_CHECK_VALUE(false, "set_bits: expected bits to be one of ", listed(words), ", got ", bits, " (layer '",
                    layer.name, "')");
}

// A name up to its side branch, "" on the main path.
std::string branch_of(const std::string& name) {
  for (size_t start = 0, end = 0; end != name.npos; start = end + 1) {
    end = name.find('.', start);
    const std::string part = name.substr(start, end == name.npos ? end : end - start);
    if (part == "shortcut" || part == "downsample") return name.substr(0, end);
  }
  return "";
}

// Tells every BatchNorm the widths of the layer before it and of the one before that.
void set_norms(std::vector<Named>& modules) {
  std::map<std::string, std::vector<int64_t>> passed;  // widths by branch, newest last
  std::vector<Module> waiting;
  for (auto& [name, module] : modules) {
    const std::string branch = branch_of(name);
    if (!passed.contains(branch)) passed[branch] = std::vector<int64_t>(passed[""]);
    std::vector<int64_t>& before = passed[branch];
    if (is_layer(module)) {
      before.push_back(module.attr("bits").toInt());
      for (Module& norm : waiting) norm.run_method("set_bits", before.back(), 0);
      waiting.clear();
    } else if (is_norm(module) && before.empty()) {
      waiting.push_back(module);
    } else if (is_norm(module)) {
      module.run_method("set_bits", before.back(), before.size() > 1 ? before[before.size() - 2] : 0);
    }
  }
}

void set_layers(Module& module, const std::optional<int64_t>& all, const LayerBits& patterns) {
  std::vector<Named> modules = modules_of(module);
  std::vector<Named> layers;
  std::vector<std::string> names;
  for (const Named& named : modules) {
    if (is_layer(named.module)) {
      layers.push_back(named);
      names.push_back(named.name);
    }
  }
  TORCH_CHECK_VALUE(!layers.empty(), "set_bits: expected module to hold layers of several widths, got none");
  std::vector<int64_t> wanted;
  for (const Named& layer : layers) wanted.push_back(all ? *all : layer.module.attr("bits").toInt());
  for (const auto& [pattern, bits] : patterns) {
    bool used = false;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (!matches(pattern, layers[i].name)) continue;
      wanted[i] = bits;
      used = true;
    }
    TORCH_CHECK_INDEX(used, "set_bits: expected names of layers, got '", pattern, "' (layers: ", listed(names), ")");
  }
  for (size_t i = 0; i < layers.size(); ++i) check_width(layers[i], wanted[i]);
  for (size_t i = 0; i < layers.size(); ++i) layers[i].module.run_method("set_bits", wanted[i]);
  set_norms(modules);
}

}  // namespace

void set_bits(Module& module, int64_t bits) {
  set_layers(module, bits, {});
}

void set_bits(Module& module, const LayerBits& bits) {
  set_layers(module, std::nullopt, bits);
}

}  // namespace quintil
