// Buffers that notice what a kernel must not touch. Each lies between two pages without any access right, so a read or
// a write beyond the end ends the test program at the faulting line; the bytes left on its own pages hold a pattern that
// intact() checks. Elements start as the same pattern: an output that a kernel forgets differs from the expected one,
// and the space between its rows must come back as it was.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace quintil::test {

constexpr int64_t kFront = -1;  // the first element opens a page, so that a read before it is caught

template <class T>
class Guarded {
 public:
  // `gap`: elements between the last one and the forbidden page (0 catches every read beyond the end, others shift the
  // alignment), or kFront.
  explicit Guarded(int64_t n, int64_t gap = 0) : size_(n) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(n + std::max<int64_t>(gap, 0)) * sizeof(T);
    room_ = std::max<size_t>(1, (bytes + page - 1) / page) * page;
    mapped_ = room_ + 2 * page;
    void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<uint8_t*>(base);
    begin_ = base_ + page;
    mprotect(begin_, room_, PROT_READ | PROT_WRITE);
    std::memset(begin_, kPattern, room_);
    first_ = gap == kFront ? begin_ : begin_ + room_ - bytes;
  }

  Guarded(const std::vector<T>& values, int64_t gap = 0) : Guarded(static_cast<int64_t>(values.size()), gap) {
    std::copy(values.begin(), values.end(), data());
  }

  Guarded(Guarded&& other) noexcept
      : size_(other.size_),
        room_(other.room_),
        mapped_(other.mapped_),
        base_(std::exchange(other.base_, nullptr)),
        begin_(other.begin_),
        first_(other.first_) {}
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    if (base_ != nullptr) munmap(base_, mapped_);
  }

  T* data() { return reinterpret_cast<T*>(first_); }
  const T* data() const { return reinterpret_cast<const T*>(first_); }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

  bool intact() const {
    const auto untouched = [](uint8_t byte) { return byte == kPattern; };
    const uint8_t* last = first_ + static_cast<size_t>(size_) * sizeof(T);
    return std::all_of(static_cast<const uint8_t*>(begin_), static_cast<const uint8_t*>(first_), untouched) &&
           std::all_of(last, static_cast<const uint8_t*>(begin_ + room_), untouched);
  }

 private:
  static constexpr uint8_t kPattern = 0xA5;

  int64_t size_;
  size_t room_, mapped_;
  uint8_t *base_, *begin_, *first_;
};

// The same bits; any NaN equals any NaN (the law promises that a result is NaN, not which one).
template <class T>
bool same(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
  } else {
    return a == b;
  }
}

// Index of the first element that differs, -1 if none; sizes that differ count as a difference at the shorter end.
template <class A, class B>
int64_t first_difference(const A& a, const B& b) {
  const int64_t na = static_cast<int64_t>(a.size()), nb = static_cast<int64_t>(b.size());
  for (int64_t i = 0; i < std::min(na, nb); ++i) {
    if (!same(a.data()[i], b.data()[i])) return i;
  }
  return na == nb ? -1 : std::min(na, nb);
}

}  // namespace quintil::test
