// Unfolding of codes and its adjoint [HDQT H12] against the definition of a convolution, element by element.
#include <algorithm>
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

// Output positions along one axis.
int64_t out_length(int64_t in, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  const int64_t reach = dilation * (kernel - 1) + 1;
  return in + 2 * pad < reach ? 0 : (in + 2 * pad - reach) / stride + 1;
}

ConvShape conv(int64_t height, int64_t width, int64_t channels, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
               int64_t stride_w, int64_t pad_h, int64_t pad_w, int64_t dilation_h, int64_t dilation_w) {
  return {height,
          width,
          channels,
          kernel_h,
          kernel_w,
          stride_h,
          stride_w,
          pad_h,
          pad_w,
          dilation_h,
          dilation_w,
          out_length(height, kernel_h, stride_h, pad_h, dilation_h),
          out_length(width, kernel_w, stride_w, pad_w, dilation_w),
          true};
}

struct Group {
  const char* hunts;
  std::vector<ConvShape> values;
};

const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {"a 1x1 kernel treated as a copy although it strides or pads",
       {conv(5, 7, 16, 1, 1, 1, 1, 0, 0, 1, 1), conv(8, 6, 16, 1, 1, 2, 3, 0, 0, 1, 1),
        conv(3, 3, 5, 1, 1, 1, 1, 1, 1, 1, 1)}},
      {"border positions of the usual 3x3 layer, channels of a power of two",
       {conv(8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1), conv(9, 8, 32, 3, 3, 2, 2, 1, 1, 1, 1),
        conv(5, 4, 64, 3, 3, 1, 1, 1, 1, 1, 1)}},
      {"channels that fill no vector, or one and a bit",
       {conv(6, 5, 1, 3, 3, 1, 1, 1, 1, 1, 1), conv(6, 5, 3, 3, 3, 1, 1, 1, 1, 1, 1),
        conv(4, 4, 15, 3, 3, 1, 1, 1, 1, 1, 1), conv(4, 4, 17, 3, 3, 1, 1, 1, 1, 1, 1),
        conv(3, 4, 33, 3, 3, 1, 1, 1, 1, 1, 1), conv(3, 3, 65, 2, 2, 1, 1, 0, 0, 1, 1)}},
      {"height and width swapped",
       {conv(4, 11, 3, 1, 5, 1, 1, 0, 2, 1, 1), conv(11, 4, 3, 5, 1, 1, 1, 2, 0, 1, 1),
        conv(9, 13, 4, 3, 2, 2, 3, 1, 0, 1, 1), conv(12, 7, 2, 2, 4, 3, 1, 0, 3, 2, 1)}},
      {"dilated taps", {conv(9, 9, 4, 3, 3, 1, 1, 2, 2, 2, 2), conv(11, 10, 5, 3, 2, 2, 1, 1, 3, 3, 4)}},
      {"a kernel larger than the image, positions wholly on padding",
       {conv(2, 2, 3, 5, 5, 1, 1, 2, 2, 1, 1), conv(1, 1, 8, 3, 3, 1, 1, 3, 3, 1, 1),
        conv(1, 2, 4, 3, 3, 1, 1, 1, 1, 1, 1)}},
      {"no position, no channel, no pixel",
       {conv(2, 2, 3, 3, 3, 1, 1, 0, 0, 1, 1), conv(4, 4, 0, 3, 3, 1, 1, 1, 1, 1, 1),
        conv(0, 0, 3, 3, 3, 1, 1, 1, 1, 1, 1)}},
  };
  return all;
}

// Calls f(shape, first row, count) for both tap orders, all positions at once and in uneven parts.
template <class F>
void for_each_case(F f) {
  for (const Group& group : groups()) {
    for (ConvShape shape : group.values) {
      const int64_t positions = shape.out_h * shape.out_w;
      for (bool channels_last_taps : {true, false}) {
        shape.channels_last_taps = channels_last_taps;
        CAPTURE(group.hunts, shape.height, shape.width, shape.channels, shape.kernel_h, shape.kernel_w, shape.stride_h,
                shape.stride_w, shape.pad_h, shape.pad_w, shape.dilation_h, shape.dilation_w, channels_last_taps);
        f(shape, int64_t{0}, positions);
        for (int64_t first = 0; first < positions; first += 7) f(shape, first, std::min<int64_t>(7, positions - first));
      }
    }
  }
}

int64_t depth_of(const ConvShape& s) {
  return s.kernel_h * s.kernel_w * s.channels;
}

// Which element of the image entry k of an output position reads, or -1 on padding.
int64_t source(const ConvShape& s, int64_t position, int64_t k) {
  const int64_t taps = s.kernel_h * s.kernel_w;
  const int64_t tap = s.channels_last_taps ? k / s.channels : k % taps;
  const int64_t channel = s.channels_last_taps ? k % s.channels : k / taps;
  const int64_t y = position / s.out_w * s.stride_h - s.pad_h + tap / s.kernel_w * s.dilation_h;
  const int64_t x = position % s.out_w * s.stride_w - s.pad_w + tap % s.kernel_w * s.dilation_w;
  if (y < 0 || y >= s.height || x < 0 || x >= s.width) return -1;
  return (y * s.width + x) * s.channels + channel;
}

TEST_CASE("im2col_u8 reads the element that each tap names; padding is the code 0") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(1);
      for_each_case([&](const ConvShape& shape, int64_t first, int64_t count) {
        const int64_t k = depth_of(shape), ld = k + draws.between(0, 5);
        const int64_t gap = test::gaps()[draws.next() % test::gaps().size()];
        const uint8_t zero = static_cast<uint8_t>(draws.between(0, 1) == 0 ? 0 : 8 << draws.between(0, 4));
        const Guarded<uint8_t> image(draws.integers<uint8_t>(shape.height * shape.width * shape.channels, 0, 255), gap);
        Guarded<uint8_t> out(count == 0 ? 0 : (count - 1) * ld + k, gap), expected(out.size());
        for (int64_t row = 0; row < count; ++row) {
          for (int64_t i = 0; i < k; ++i) {
            const int64_t from = source(shape, first + row, i);
            expected[row * ld + i] = from < 0 ? zero : image[from];
          }
        }
        kernels::table(isa)->im2col_u8(image.data(), shape, first, count, zero, out.data(), ld);
        CAPTURE(first, count, ld, gap, test::first_difference(out, expected));
        CHECK(test::first_difference(out, expected) == -1);
        CHECK(out.intact());
      });
    }
  }
}

TEST_CASE("col2im_s32 adds every tap onto the image and drops those on padding") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(2);
      for_each_case([&](const ConvShape& shape, int64_t first, int64_t count) {
        const int64_t k = depth_of(shape), ld = k + draws.between(0, 5);
        const int64_t gap = test::gaps()[draws.next() % test::gaps().size()];
        const Guarded<int32_t> cols(draws.integers<int32_t>(count == 0 ? 0 : (count - 1) * ld + k, -1000000, 1000000),
                                    gap);
        const std::vector<int32_t> before =
            draws.integers<int32_t>(shape.height * shape.width * shape.channels, -1000, 1000);
        Guarded<int32_t> image(before, gap);
        std::vector<int32_t> expected = before;
        for (int64_t row = 0; row < count; ++row) {
          for (int64_t i = 0; i < k; ++i) {
            const int64_t to = source(shape, first + row, i);
            if (to >= 0) expected[static_cast<size_t>(to)] += cols[row * ld + i];
          }
        }
        kernels::table(isa)->col2im_s32(cols.data(), ld, shape, first, count, image.data());
        CAPTURE(first, count, ld, gap, test::first_difference(image, expected));
        CHECK(test::first_difference(image, expected) == -1);
        CHECK(image.intact());
      });
    }
  }
}

TEST_CASE("the two are adjoint: <unfold(x), y> = <x, fold(y)>") {
  for (const std::string& isa : test::tested_isas()) {
    DYNAMIC_SECTION(isa) {
      test::Draws draws(3);
      for_each_case([&](const ConvShape& shape, int64_t first, int64_t count) {
        const int64_t k = depth_of(shape), pixels = shape.height * shape.width * shape.channels;
        const std::vector<uint8_t> x = draws.integers<uint8_t>(pixels, 0, 255);
        const std::vector<int32_t> y = draws.integers<int32_t>(count * k, -100, 100);
        std::vector<uint8_t> unfolded(static_cast<size_t>(count * k));
        std::vector<int32_t> folded(static_cast<size_t>(pixels), 0);
        kernels::table(isa)->im2col_u8(x.data(), shape, first, count, 0, unfolded.data(), k);
        kernels::table(isa)->col2im_s32(y.data(), k, shape, first, count, folded.data());
        int64_t left = 0, right = 0;
        for (size_t i = 0; i < y.size(); ++i) left += int64_t{unfolded[i]} * y[i];
        for (size_t i = 0; i < x.size(); ++i) right += int64_t{x[i]} * folded[i];
        CHECK(left == right);
      });
    }
  }
}

}  // namespace
}  // namespace quintil
