//   8 bytes: length of the header, little endian      header: JSON {name: {dtype, shape, data_offsets}, "__metadata__"}
//   the tensors' bytes, without gaps
// Nothing of a file is trusted before its place was checked; the checksum then finds what is well formed and changed.
#include "csrc/storage/tensor_file.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <c10/util/safe_numerics.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "csrc/storage/sha256.h"

namespace quintil::storage {

namespace {

constexpr const char* kKey = "quintil";           // of the metadata
constexpr size_t kDigits = 64, kEnd = 2;          // of the checksum, and of what closes the manifest behind it
constexpr uint64_t kLongestHeader = 100'000'000;  // as the library that writes has it

const std::map<std::string, at::ScalarType> kTypes = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},  {"U8", at::kByte},       {"BOOL", at::kBool}};

std::string contents(const char* op, const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::string data;
  const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (size >= 0) {
    data.resize(static_cast<size_t>(size));
    file.seekg(0).read(data.data(), size);
  }
  TORCH_CHECK_VALUE(size >= 0 && file, op, ": expected ", path, " to be a file that can be read, got none");
  return data;
}

Json header_of(std::string_view data, std::string_view& body) {
  uint64_t length = 0;
  if (data.size() < 8) throw std::invalid_argument(std::to_string(data.size()) + " bytes");
  std::memcpy(&length, data.data(), 8);
  if (length > std::min<uint64_t>(kLongestHeader, data.size() - 8)) {
    throw std::invalid_argument("a header of " + std::to_string(length) + " bytes in " + std::to_string(data.size()));
  }
  body = data.substr(8 + length);
  return parse_json(data.substr(8, length));
}

// The bytes of one tensor, found to be as many as dtype and shape say.
std::string_view bytes_of(const Json& entry, std::string_view body) {
  const auto type = kTypes.find(entry.at("dtype").text());
  if (type == kTypes.end()) throw std::invalid_argument("the dtype " + entry.at("dtype").text());
  int64_t size = static_cast<int64_t>(c10::elementSize(type->second));
  for (const Json& item : entry.at("shape").items()) {
    const int64_t n = item.integer();
    if (n < 0 || c10::mul_overflows(size, n, &size)) throw std::invalid_argument("a shape that cannot be");
  }
  const Json::Array& offsets = entry.at("data_offsets").items();
  if (offsets.size() != 2) throw std::invalid_argument("other than two data_offsets");
  const int64_t start = offsets[0].integer(), stop = offsets[1].integer();
  if (start < 0 || stop < start || stop > static_cast<int64_t>(body.size()) || stop - start != size) {
    throw std::invalid_argument("bytes " + std::to_string(start) + " to " + std::to_string(stop) + " of " +
                                std::to_string(body.size()) + " for " + std::to_string(size));
  }
  return body.substr(start, size);
}

at::Tensor tensor_of(const Json& entry, std::string_view bytes) {
  std::vector<int64_t> shape;
  for (const Json& item : entry.at("shape").items()) shape.push_back(item.integer());
  at::Tensor tensor = at::empty(shape, kTypes.at(entry.at("dtype").text()));
  if (!bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor;
}

void add(Sha256& digest, std::string_view part) {
  const std::string length = std::to_string(part.size()) + ":";
  digest.update(length.data(), length.size());
  digest.update(part.data(), part.size());
}

void add(Sha256& digest, const std::string& name, const Json& entry, std::string_view bytes) {
  std::string sizes;
  for (const Json& item : entry.at("shape").items()) {
    if (!sizes.empty()) sizes += ',';
    sizes += std::to_string(item.integer());
  }
  add(digest, name);
  add(digest, entry.at("dtype").text());
  add(digest, sizes);
  add(digest, bytes);
}

// Reads everything; false where the checksum is not that of the contents. std::invalid_argument: not well formed.
bool read(std::string_view data, TensorFile& file) {
  std::string_view body;
  const Json header = header_of(data, body);
  std::string manifest;
  size_t covered = 0;
  Sha256 digest;
  const auto metadata = header.members().find("__metadata__");
  if (metadata != header.members().end()) {
    manifest = metadata->second.at(kKey).text();
    file.manifest = parse_json(manifest);
  }
  if (manifest.size() < kDigits + kEnd) throw std::invalid_argument("no manifest of quintil");
  add(digest, std::string_view(manifest).substr(0, manifest.size() - kDigits - kEnd));
  for (const auto& [name, entry] : header.members()) {
    if (name == "__metadata__") continue;
    const std::string_view bytes = bytes_of(entry, body);
    covered += bytes.size();
    add(digest, name, entry, bytes);
    file.tensors.emplace(name, tensor_of(entry, bytes));
  }
  if (covered != body.size()) {
    throw std::invalid_argument("tensors of " + std::to_string(covered) + " bytes in " + std::to_string(body.size()));
  }
  return manifest.substr(manifest.size() - kDigits - kEnd, kDigits) == digest.hexadecimal();
}

}  // namespace

TensorFile read_tensors(const char* op, const std::string& path) {
  const std::string data = contents(op, path);
  TensorFile file;
  bool unchanged = false;
  try {
    unchanged = read(data, file);
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, op, ": expected ", path, " to be a whole file of quintil, got ", error.what());
  }
  TORCH_CHECK_VALUE(unchanged, op, ": expected ", path, " to have the checksum in its header, got changed contents");
  return file;
}

}  // namespace quintil::storage
