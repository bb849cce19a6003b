// The arena behind Workspace: a list of chunks; once no scope is open, several chunks are merged into one.
#include "csrc/ops/workspace.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <vector>

namespace quintil::ops {

namespace {

constexpr size_t kAlign = 64;
constexpr size_t kSmallestChunk = size_t{1} << 20;

struct Chunk {
  void* data = nullptr;
  size_t size = 0;
};

struct Arena {
  std::vector<Chunk> chunks;
  size_t current = 0;  // chunk in use
  size_t used = 0;     // bytes taken of it
  int scopes = 0;

  ~Arena() { clear(); }

  void clear() {
    for (Chunk& chunk : chunks) std::free(chunk.data);
    chunks.clear();
  }

  void add(size_t size) {
    void* data = std::aligned_alloc(kAlign, size);
    if (data == nullptr) throw std::bad_alloc();
    chunks.push_back({data, size});
  }

  void* take(size_t size) {
    size = (size + kAlign - 1) / kAlign * kAlign;
    while (current < chunks.size() && used + size > chunks[current].size) {
      ++current;
      used = 0;
    }
    if (current == chunks.size()) add(std::max({kSmallestChunk, size, chunks.empty() ? 0 : 2 * chunks.back().size}));
    void* result = static_cast<char*>(chunks[current].data) + used;
    used += size;
    return result;
  }

  void merge() {
    if (chunks.size() < 2) return;
    size_t total = 0;
    for (const Chunk& chunk : chunks) total += chunk.size;
    clear();
    add(total);
  }
};

thread_local Arena arena;

}  // namespace

Workspace::Workspace() : chunk_(arena.current), used_(arena.used) {
  ++arena.scopes;
}

Workspace::~Workspace() {
  arena.current = chunk_;
  arena.used = used_;
  if (--arena.scopes == 0) arena.merge();
}

void* Workspace::bytes(size_t size) {
  return arena.take(size);
}

}  // namespace quintil::ops
