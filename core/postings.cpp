#include "postings.hpp"

#include <algorithm>
#include <cstddef>

namespace kato {

namespace {
constexpr std::uint32_t kLargestChunk = 4096;
constexpr std::uint32_t kSmallIndex = kBlock;  // below it bitmaps would cost more than they save
constexpr std::uint32_t kDenseShare = 32;      // one pattern in so many: from here on bits are smaller than ids
}  // namespace

void PostingList::append(PatternId id, std::uint32_t patterns, Arena& arena, Bitmaps& bitmaps) {
  if (!tail_ || used_ == tail_->capacity) {
    const std::uint32_t capacity = size_ ? std::clamp(size_ / 4, 3u, kLargestChunk) : 1;
    const std::size_t bytes = offsetof(PostingChunk, ids) + capacity * sizeof(PatternId);
    auto* fresh = static_cast<PostingChunk*>(arena.allocate(bytes));
    fresh->next = nullptr;
    fresh->capacity = capacity;
    (tail_ ? tail_->next : head_) = fresh;
    tail_ = fresh;
    used_ = 0;
  }
  tail_->ids[used_++] = id;
  ++size_;
  if (bitmap_) {
    bitmap_->set(id);
  } else if (patterns >= kSmallIndex && size_ >= patterns / kDenseShare) {
    auto bitmap = std::make_unique<Bitmap>();
    PostingCursor(*this).advance(id + 1, [&](PatternId held) { bitmap->set(held); });
    bitmap_ = bitmap.get();
    bitmaps.push_back(std::move(bitmap));
  }
}

}  // namespace kato
