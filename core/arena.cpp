#include "arena.hpp"

#include <algorithm>

namespace kato {

namespace {
constexpr std::size_t kSmallest = 256;
constexpr std::size_t kLargest = std::size_t{1} << 20;
}  // namespace

void* Arena::allocate(std::size_t bytes) {
  bytes = (bytes + 7) & ~std::size_t{7};
  if (bytes > left_) {
    // Chunks grow with the content, so that a small index stays small and a large one needs few of them.
    const std::size_t size = std::max(bytes, std::clamp(held_ / 4, kSmallest, kLargest));
    chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(size));
    held_ += size;
    if (size - bytes < left_) return chunks_.back().get();  // a large object: keep filling the current chunk
    next_ = chunks_.back().get();
    left_ = size;
  }
  void* place = next_;
  next_ += bytes;
  left_ -= bytes;
  return place;
}

}  // namespace kato
