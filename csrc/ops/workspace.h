// Thread-local scratch memory: grow-only, 64-byte aligned, released in the reverse order of its allocation (P11).
//   Workspace scratch;                     // marks the arena of this thread
//   float* x = scratch.take<float>(n);     // uninitialised, valid until `scratch` goes out of scope
#pragma once

#include <cstddef>
#include <cstdint>

namespace quintil::ops {

class Workspace {
 public:
  Workspace();
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  void* bytes(size_t size);

  size_t chunk_;  // where the arena stood when this scope began
  size_t used_;
};

}  // namespace quintil::ops
