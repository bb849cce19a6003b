// Nibble packing, widening and narrowing, over every code there is.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "csrc/kernels/dispatch.h"
#include "tests/cpp/catch.h"
#include "tests/cpp/draws.h"
#include "tests/cpp/guarded.h"
#include "tests/cpp/shapes.h"

namespace quintil {
namespace {

using test::Guarded;

TEST_CASE("pack_u8u4 packs all 256 pairs, even index low") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      Guarded<uint8_t> codes(512), packed(256);
      for (int pair = 0; pair < 256; ++pair) {
        codes[2 * pair] = static_cast<uint8_t>(pair % 16);
        codes[2 * pair + 1] = static_cast<uint8_t>(pair / 16);
      }
      kernels::table(isa)->pack_u8u4(codes.data(), 512, packed.data());
      for (int pair = 0; pair < 256; ++pair) CHECK(int{packed[pair]} == pair);
    }
  }
}

TEST_CASE("pack_u8u4 keeps the low 4 bits of any byte; the last pad nibble is 0") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          const Guarded<uint8_t> codes(draws.integers<uint8_t>(n, 0, 255), gap);
          Guarded<uint8_t> packed((n + 1) / 2, gap);
          std::vector<uint8_t> expected(static_cast<size_t>((n + 1) / 2), 0);
          for (int64_t i = 0; i < n; ++i) {
            expected[static_cast<size_t>(i / 2)] |= static_cast<uint8_t>(codes[i] % 16 * (i % 2 == 0 ? 1 : 16));
          }
          kernels::table(isa)->pack_u8u4(codes.data(), n, packed.data());
          CAPTURE(n, gap);
          CHECK(test::first_difference(packed, expected) == -1);
          CHECK(packed.intact());
        }
      }
    }
  }
}

TEST_CASE("unpack_u4u8 inverts every byte, unsigned and with the sign") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      Guarded<uint8_t> packed(256), plain(512), with_sign(512);
      for (int byte = 0; byte < 256; ++byte) packed[byte] = static_cast<uint8_t>(byte);
      kernels::table(isa)->unpack_u4u8(packed.data(), 512, false, plain.data());
      kernels::table(isa)->unpack_u4u8(packed.data(), 512, true, with_sign.data());
      for (int i = 0; i < 512; ++i) {
        const int code = i % 2 == 0 ? i / 2 % 16 : i / 2 / 16;
        CAPTURE(i);
        CHECK(int{plain[i]} == code);
        CHECK(int{static_cast<int8_t>(with_sign[i])} == (code < 8 ? code : code - 16));
      }
    }
  }
}

TEST_CASE("unpack_u4u8 writes exactly n bytes and undoes pack_u8u4") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          for (bool sign_extend : {false, true}) {
            const std::vector<uint8_t> codes = draws.integers<uint8_t>(n, sign_extend ? -8 : 0, sign_extend ? 7 : 15);
            Guarded<uint8_t> packed((n + 1) / 2, gap), out(n, gap);
            kernels::table("scalar")->pack_u8u4(codes.data(), n, packed.data());
            kernels::table(isa)->unpack_u4u8(packed.data(), n, sign_extend, out.data());
            CAPTURE(n, gap, sign_extend);
            CHECK(test::first_difference(out, codes) == -1);
            CHECK(out.intact());
          }
        }
      }
    }
  }
}

TEST_CASE("widen_u8s16 takes the offset off every byte") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      for (int32_t zero : {0, 2, 8, 128}) {
        for (int64_t n : test::flattened(test::length_groups())) {
          Guarded<uint8_t> codes(draws.integers<uint8_t>(n, 0, 255));
          for (int64_t i = 0; n >= 256 && i < 256; ++i) codes[i] = static_cast<uint8_t>(i);
          for (int64_t gap : test::gaps()) {
            Guarded<int16_t> out(n, gap);
            std::vector<int16_t> expected;
            for (int64_t i = 0; i < n; ++i) expected.push_back(static_cast<int16_t>(int32_t{codes[i]} - zero));
            kernels::table(isa)->widen_u8s16(codes.data(), n, zero, out.data());
            CAPTURE(zero, n, gap);
            CHECK(test::first_difference(out, expected) == -1);
            CHECK(out.intact());
          }
        }
      }
    }
  }
}

// floor, floor(v + 1/2) and nearest-even of q / 2^shift; doubles hold all of it exactly.
double rounded_quotient(int q, int32_t shift, Rounding rounding) {
  const double v = static_cast<double>(q) / static_cast<double>(1 << shift);
  if (rounding == Rounding::kFloor) return std::floor(v);
  return rounding == Rounding::kHalfUp ? std::floor(v + 0.5) : std::nearbyint(v);
}

TEST_CASE("double_round_s8s8 rounds all 256 codes at every width") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      Guarded<int8_t> codes(256), out(256);
      for (int q = -128; q < 128; ++q) codes[q + 128] = static_cast<int8_t>(q);
      for (const Rounding rounding : {Rounding::kHalfEven, Rounding::kHalfUp, Rounding::kFloor}) {
        for (int32_t shift = 0; shift < 8; ++shift) {
          for (int32_t bits = 1; bits <= 8; ++bits) {
            const int32_t lo = -(1 << (bits - 1)), hi = bits == 1 ? 1 : (1 << (bits - 1)) - 1;
            kernels::table(isa)->double_round_s8s8(codes.data(), 256, {shift, lo, hi, rounding}, out.data());
            int wrong = 0;
            for (int q = -128; q < 128; ++q) {
              wrong += out[q + 128] != std::clamp<double>(rounded_quotient(q, shift, rounding), lo, hi);
            }
            CAPTURE(static_cast<int>(rounding), shift, bits);
            CHECK(wrong == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("double_round_s8s8 touches its codes alone, also in place") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(4);
      for (int64_t n : test::flattened(test::length_groups())) {
        for (int64_t gap : test::gaps()) {
          Guarded<int8_t> codes(draws.integers<int8_t>(n, -128, 127), gap), got(n, gap), expected(n, gap);
          const Narrowing to{static_cast<int32_t>(draws.between(0, 7)), -8, 7, Rounding::kHalfEven};
          kernels::table("scalar")->double_round_s8s8(codes.data(), n, to, expected.data());
          kernels::table(isa)->double_round_s8s8(codes.data(), n, to, got.data());
          kernels::table(isa)->double_round_s8s8(codes.data(), n, to, codes.data());
          CAPTURE(n, gap, to.shift);
          CHECK(test::first_difference(got, expected) == -1);
          CHECK(test::first_difference(codes, expected) == -1);
          CHECK(got.intact());
          CHECK(codes.intact());
        }
      }
    }
  }
}

}  // namespace
}  // namespace quintil
