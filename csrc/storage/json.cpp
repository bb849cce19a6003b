// A recursive-descent reader: one method per kind of value, `at_` always at the next byte to read.
#include "csrc/storage/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace quintil::storage {

namespace {

constexpr int kDeepest = 64;  // nested values; more is no header of a file

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Json whole() {
    Json value = any(0);
    skip_space();
    if (at_ < text_.size()) fail("more text");
    return value;
  }

 private:
  Json any(int depth) {
    if (depth > kDeepest) fail("deeper values");
    skip_space();
    switch (peek()) {
      case '{': return Json(object(depth));
      case '[': return Json(array(depth));
      case '"': return Json(string());
      case 't': return word("true", Json(true));
      case 'f': return word("false", Json(false));
      case 'n': return word("null", Json());
      default: return Json(number());
    }
  }

  Json::Object object(int depth) {
    Json::Object members;
    take('{');
    for (bool first = true; !ends('}', first); first = false) {
      skip_space();
      std::string name = string();
      skip_space();
      take(':');
      Json value = any(depth + 1);
      if (!members.emplace(name, std::move(value)).second) fail("a second member '" + name + "'");
    }
    return members;
  }

  Json::Array array(int depth) {
    Json::Array items;
    take('[');
    for (bool first = true; !ends(']', first); first = false) items.push_back(any(depth + 1));
    return items;
  }

  // At the end of an object or array: true and past it; else past the comma that stands before all but the first.
  bool ends(char bracket, bool first) {
    skip_space();
    if (peek() == bracket) {
      ++at_;
      return true;
    }
    if (!first) take(',');
    return false;
  }

  std::string string() {
    std::string out;
    take('"');
    while (peek() != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      if (c == '\\') {
        escaped(out);
      } else {
        out += c;
      }
    }
    ++at_;
    return out;
  }

  void escaped(std::string& out) {
    constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = peek();
    ++at_;
    if (c == 'u') {
      append_utf8(code_point(), out);
    } else if (const size_t place = names.find(c); place != names.npos) {
      out += meanings[place];
    } else {
      fail("an unknown escape");
    }
  }

  // Four hexadecimal digits, or two such escapes that are a surrogate pair.
  uint32_t code_point() {
    const uint32_t high = four_digits();
    if (high < 0xd800 || high > 0xdfff) return high;
    take('\\');
    take('u');
    const uint32_t low = four_digits();
    if (high > 0xdbff || low < 0xdc00 || low > 0xdfff) fail("half a surrogate pair");
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
  }

  uint32_t four_digits() {
    uint32_t value = 0;
    const char* start = text_.data() + at_;
    const size_t length = std::min<size_t>(4, text_.size() - at_);
    const auto [end, error] = std::from_chars(start, start + length, value, 16);
    if (error != std::errc() || end != start + 4) fail("no four hexadecimal digits");
    at_ += 4;
    return value;
  }

  static void append_utf8(uint32_t code, std::string& out) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3f)); };
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | (code >> 6));
      tail(0);
    } else if (code < 0x10000) {
      out += static_cast<char>(0xe0 | (code >> 12));
      tail(6);
      tail(0);
    } else {
      out += static_cast<char>(0xf0 | (code >> 18));
      tail(12);
      tail(6);
      tail(0);
    }
  }

  double number() {
    double value = 0;
    const char* start = text_.data() + at_;
    const char* stop = text_.data() + text_.size();
    const bool plain = start < stop && (*start == '-' || (*start >= '0' && *start <= '9'));
    const auto [end, error] = std::from_chars(start, stop, value);
    if (!plain || error != std::errc()) fail("no value");
    at_ += static_cast<size_t>(end - start);
    return value;
  }

  Json word(std::string_view name, Json value) {
    if (text_.substr(at_, name.size()) != name) fail("no value");
    at_ += name.size();
    return value;
  }

  char peek() const {
    if (at_ >= text_.size()) fail("its end");
    return text_[at_];
  }

  void take(char c) {
    if (peek() != c) fail(std::string("no ") + c);
    ++at_;
  }

  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }

  [[noreturn]] void fail(const std::string& what) const {
    throw std::invalid_argument("JSON with " + what + " at byte " + std::to_string(at_));
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

void Json::need(Kind kind, const char* what) const {
  if (kind_ != kind) throw std::invalid_argument(std::string("a value that is no ") + what);
}

bool Json::boolean() const {
  need(Kind::boolean, "boolean");
  return number_ != 0;
}

int64_t Json::integer() const {
  need(Kind::number, "number");
  if (std::trunc(number_) != number_ || std::fabs(number_) > 9007199254740992.0) {
    throw std::invalid_argument("a number that is no integer");
  }
  return static_cast<int64_t>(number_);
}

const std::string& Json::text() const {
  need(Kind::string, "string");
  return text_;
}

const Json::Array& Json::items() const {
  need(Kind::array, "array");
  return items_;
}

const Json::Object& Json::members() const {
  need(Kind::object, "object");
  return members_;
}

const Json& Json::at(const std::string& name) const {
  const auto found = members().find(name);
  if (found == members().end()) throw std::invalid_argument("an object without '" + name + "'");
  return found->second;
}

Json parse_json(std::string_view text) {
  return Reader(text).whole();
}

}  // namespace quintil::storage
