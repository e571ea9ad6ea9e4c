// Memory that is handed out once, never moves and is freed as a whole.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace kato {

class Arena {
 public:
  // Uninitialised room for `count` objects, aligned for anything up to 8 bytes.
  template <class T>
  T* array(std::size_t count) {
    static_assert(alignof(T) <= 8);
    return static_cast<T*>(allocate(count * sizeof(T)));
  }

  void* allocate(std::size_t bytes);

  // Bytes held, unused room included.
  std::size_t bytes() const { return held_ + chunks_.capacity() * sizeof(Chunk); }

 private:
  using Chunk = std::unique_ptr<std::byte[]>;

  std::vector<Chunk> chunks_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
  std::size_t held_ = 0;
};

}  // namespace kato
