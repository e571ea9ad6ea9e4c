// A posting list: the ids of the patterns that hold a symbol, ascending. It only grows and its memory never moves,
// so a reader that noted how long it was may walk that far while the writer appends.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "arena.hpp"
#include "segments.hpp"

namespace kato {

using PatternId = std::uint32_t;

// Searches count block by block, so that the counters stay in the nearest cache.
constexpr std::uint32_t kBlockBits = 14;
constexpr std::uint32_t kBlock = 1u << kBlockBits;
constexpr std::uint32_t kBlockWords = kBlock / 64;

// One bit per pattern, kept beside the ids of a list that holds a good share of all patterns: reading bits is then
// far cheaper than reading ids.
class Bitmap {
 public:
  void set(PatternId id) {
    std::atomic_ref<std::uint64_t> word(words_.reach(id >> 6));
    word.store(word.load(std::memory_order_relaxed) | std::uint64_t{1} << (id & 63), std::memory_order_relaxed);
  }

  bool test(PatternId id) const {
    const std::uint64_t* word = words_.find(id >> 6);
    return word && (read(word) >> (id & 63) & 1);
  }

  // The kBlockWords words of the block that starts at pattern `base`, nullptr when all are zero.
  const std::uint64_t* block(PatternId base) const { return words_.find(base >> 6); }

  // The writer may be setting another bit of the same word.
  static std::uint64_t read(const std::uint64_t* word) {
    return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(*word)).load(std::memory_order_relaxed);
  }

  std::size_t bytes() const { return sizeof *this + words_.bytes(); }

 private:
  Segments<std::uint64_t, kBlockBits - 6> words_;
};

using Bitmaps = std::vector<std::unique_ptr<Bitmap>>;

struct PostingChunk {
  PostingChunk* next;
  std::uint32_t capacity;
  PatternId ids[1];  // `capacity` of them
};

class PostingList {
 public:
  // Adds the greatest id so far. Of `patterns` patterns in all; a list that became dense gets its bitmap.
  void append(PatternId id, std::uint32_t patterns, Arena& arena, Bitmaps& bitmaps);

  const PostingChunk* head() const { return head_; }
  std::uint32_t size() const { return size_; }
  const Bitmap* bitmap() const { return bitmap_; }

 private:
  PostingChunk* head_ = nullptr;
  PostingChunk* tail_ = nullptr;
  Bitmap* bitmap_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t used_ = 0;  // of the tail
};

// A posting list as it was at one moment, read from front to back.
class PostingCursor {
 public:
  PostingCursor() = default;
  explicit PostingCursor(const PostingList& list)
      : chunk_(list.head()), bitmap_(list.bitmap()), size_(list.size()), left_(list.size()) {}

  std::uint32_t size() const { return size_; }
  const Bitmap* bitmap() const { return bitmap_; }

  // Calls visit(id) for every remaining id below `end`.
  template <class Visit>
  void advance(PatternId end, Visit&& visit) {
    while (left_) {
      const std::uint32_t here = std::min(left_, chunk_->capacity - at_);
      const PatternId* ids = chunk_->ids + at_;
      std::uint32_t taken = 0;
      while (taken < here && ids[taken] < end) visit(ids[taken++]);
      left_ -= taken;
      at_ += taken;
      if (taken < here) return;
      if (left_) {
        chunk_ = chunk_->next;
        at_ = 0;
      }
    }
  }

 private:
  const PostingChunk* chunk_ = nullptr;
  const Bitmap* bitmap_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t left_ = 0;
  std::uint32_t at_ = 0;
};

}  // namespace kato
