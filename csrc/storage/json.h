// JSON texts as values (RFC 8259), as far as headers and manifests of files need them. No torch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace quintil::storage {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;

  Json() = default;  // null
  explicit Json(bool value) : kind_(Kind::boolean), number_(value) {}
  explicit Json(double value) : kind_(Kind::number), number_(value) {}
  explicit Json(std::string value) : kind_(Kind::string), text_(std::move(value)) {}
  explicit Json(Array value) : kind_(Kind::array), items_(std::move(value)) {}
  explicit Json(Object value) : kind_(Kind::object), members_(std::move(value)) {}

  // Each throws std::invalid_argument for a value of another kind, `at` for a name that the object does not have.
  bool boolean() const;
  int64_t integer() const;  // a number without fraction, at most 2^53
  const std::string& text() const;
  const Array& items() const;
  const Object& members() const;
  const Json& at(const std::string& name) const;

  bool operator==(const Json& other) const = default;

 private:
  enum class Kind { null, boolean, number, string, array, object };

  void need(Kind kind, const char* what) const;

  Kind kind_ = Kind::null;
  double number_ = 0;  // of a boolean too
  std::string text_;
  Array items_;
  Object members_;
};

// Throws std::invalid_argument for anything but one JSON value, and for an object with two members of one name.
Json parse_json(std::string_view text);

}  // namespace quintil::storage
