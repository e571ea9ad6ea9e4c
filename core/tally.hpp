// In how many of a state's lists each pattern of a block occurs: the multiset overlap of state and pattern.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "postings.hpp"

namespace kato {

static_assert(std::endian::native == std::endian::little, "bits are spread to bytes by little-endian words");

// kSpread[bits] has byte i = bit i.
inline constexpr auto kSpread = [] {
  std::array<std::uint64_t, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    for (unsigned i = 0; i < 8; ++i) table[bits] |= std::uint64_t{bits >> i & 1} << (8 * i);
  }
  return table;
}();

// Counts of the patterns of one block, for states with so few symbols that a byte suffices.
struct NarrowTally {
  std::array<std::uint8_t, kBlock> counts;
  // Patterns that may have a run: two neighbours that are neighbours in the state too.
  std::array<std::uint64_t, kBlockWords> runs;

  void clear() {
    counts.fill(0);
    runs.fill(0);
  }

  void add(PostingCursor& list, PatternId base, PatternId end) {
    if (list.bitmap()) {
      if (const std::uint64_t* words = list.bitmap()->block(base)) add(words);
      return;
    }
    list.advance(end, [&](PatternId id) {
      const std::uint32_t i = id - base;
      ++counts[i];
      runs[i / 64] |= std::uint64_t{1} << i % 64;  // the list is short: its patterns are not worth a distinction
    });
  }

  // Patterns that hold both symbols. Where a list has no bitmap, add() did what is necessary.
  void mark_runs(const Bitmap* one, const Bitmap* other, PatternId base) {
    const std::uint64_t* a = one ? one->block(base) : nullptr;
    const std::uint64_t* b = other ? other->block(base) : nullptr;
    if (!a || !b) return;
    for (std::uint32_t i = 0; i < kBlockWords; ++i) runs[i] |= Bitmap::read(a + i) & Bitmap::read(b + i);
  }

  bool may_run(std::uint32_t i) const { return runs[i / 64] >> i % 64 & 1; }

 private:
  void add(const std::uint64_t* words) {
    for (std::uint32_t i = 0; i < kBlockWords; ++i) {
      const std::uint64_t word = Bitmap::read(words + i);
      for (unsigned byte = 0; byte < 8; ++byte) {
        std::uint64_t eight;
        std::uint8_t* place = counts.data() + i * 64 + byte * 8;
        std::memcpy(&eight, place, 8);
        eight += kSpread[word >> (8 * byte) & 255];
        std::memcpy(place, &eight, 8);
      }
    }
  }
};

// The same for any state.
struct WideTally {
  std::array<std::uint32_t, kBlock> counts;

  void clear() { counts.fill(0); }

  void add(PostingCursor& list, PatternId base, PatternId end) {
    list.advance(end, [&](PatternId id) { ++counts[id - base]; });
  }

  void mark_runs(const Bitmap*, const Bitmap*, PatternId) {}
};

}  // namespace kato
