// The readers below load_quantized that know no torch: SHA-256 on published vectors, JSON on texts that are right and
// wrong. Whole files: tests/python/test_cpp_storage.py.
#include <stdexcept>
#include <string>

#include "csrc/storage/json.h"
#include "csrc/storage/sha256.h"
#include "tests/cpp/catch.h"

namespace quintil::storage {
namespace {

std::string digest(const std::string& text, size_t step) {
  Sha256 sha;
  for (size_t at = 0; at < text.size(); at += step) sha.update(text.data() + at, std::min(step, text.size() - at));
  return sha.hexadecimal();
}

// What parse_json says of a text that is wrong.
std::string refusal(const std::string& text) {
  try {
    parse_json(text);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing";
}

TEST_CASE("SHA-256 of FIPS 180-4's examples, in pieces of any size") {
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  for (const size_t step : {1, 7, 55, 64, 65, 1000000}) {
    CAPTURE(step);
    CHECK(digest("", step) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(digest("abc", step) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(digest(two_blocks, step) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(digest(std::string(1000000, 'a'), step) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
}

TEST_CASE("JSON values of every kind") {
  const Json json = parse_json(R"( {"a" : [1, -2.5e1, 0, []], "b":{"c":true,"d":false},"e": null, "f":"x"} )");
  CHECK(json.members().size() == 4);
  CHECK(json.at("a").items().size() == 4);
  CHECK(json.at("a").items()[0].integer() == 1);
  CHECK(json.at("a").items()[1].integer() == -25);
  CHECK(json.at("a").items()[3].items().empty());
  CHECK(json.at("b").at("c").boolean());
  CHECK_FALSE(json.at("b").at("d").boolean());
  CHECK(json.at("f").text() == "x");
  CHECK(parse_json("9007199254740992").integer() == 9007199254740992);
  CHECK(parse_json(R"("\"\\\/\b\f\n\r\t\u00e4\u20ac\ud83d\ude00 ä")").text() == "\"\\/\b\f\n\r\tä€😀 ä");
}

TEST_CASE("JSON values are equal where kind and contents are") {
  CHECK(parse_json(R"({"a": [1, "x", null], "b": 0.5})") == parse_json(R"({"b":5e-1,"a":[1.0,"x",null]})"));
  for (const char* other : {"2", "\"1\"", "true", "null", "[1]", "{\"a\":1}"}) {
    CAPTURE(other);
    CHECK_FALSE(parse_json("1") == parse_json(other));
  }
}

TEST_CASE("values of another kind and names that are absent are refused") {
  const Json json = parse_json(R"({"text": "x", "half": 0.5, "far": 1e300})");
  CHECK_THROWS_AS(json.at("none"), std::invalid_argument);
  CHECK_THROWS_AS(json.at("text").at("x"), std::invalid_argument);
  CHECK_THROWS_AS(json.at("text").integer(), std::invalid_argument);
  CHECK_THROWS_AS(json.at("text").boolean(), std::invalid_argument);
  CHECK_THROWS_AS(json.at("text").items(), std::invalid_argument);
  CHECK_THROWS_AS(json.at("half").integer(), std::invalid_argument);
  CHECK_THROWS_AS(json.at("far").integer(), std::invalid_argument);
  CHECK_THROWS_AS(json.text(), std::invalid_argument);
}

TEST_CASE("texts that are no JSON are refused with their place") {
  CHECK(refusal("") == "JSON with its end at byte 0");
  CHECK(refusal("{\"a\":1} x") == "JSON with more text at byte 8");
  CHECK(refusal("{\"a\":1,\"a\":2}") == "JSON with a second member 'a' at byte 12");
  CHECK(refusal("{\"a\" 1}") == "JSON with no : at byte 5");
  CHECK(refusal("[1 2]") == "JSON with no , at byte 3");
  CHECK(refusal("[1,]") == "JSON with no value at byte 3");
  CHECK(refusal("{1:2}") == "JSON with no \" at byte 1");
  CHECK(refusal("nul") == "JSON with no value at byte 0");
  CHECK(refusal("+1") == "JSON with no value at byte 0");
  CHECK(refusal("\"\\x\"") == "JSON with an unknown escape at byte 3");
  CHECK(refusal("\"\\u12g4\"") == "JSON with no four hexadecimal digits at byte 3");
  CHECK(refusal("\"\\ud83dx\"") == "JSON with no \\ at byte 7");
  CHECK(refusal("\"\\ud83d\\u0041\"") == "JSON with half a surrogate pair at byte 13");
  CHECK(refusal("\"a\nb\"") == "JSON with a control character in a string at byte 3");
  CHECK(refusal("\"abc") == "JSON with its end at byte 4");
  CHECK(refusal(std::string(70, '[')) == "JSON with deeper values at byte 65");
}

}  // namespace
}  // namespace quintil::storage
