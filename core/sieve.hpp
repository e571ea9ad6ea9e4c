// Goes through the counters of a block and drops most patterns at once, sixteen at a time where the processor can.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#ifdef __SSSE3__
#include <tmmintrin.h>
#endif

namespace kato {

// What the loop below uses, for benchmark reports.
#ifdef __SSSE3__
constexpr const char* kInstructions = "SSSE3";
#else
constexpr const char* kInstructions = "scalar";
#endif

class Sieve {
 public:
  static constexpr std::uint32_t kLongest = 255;  // lengths are given cut to it
  static constexpr std::uint32_t kHighest = 15;   // counts from it on are not told apart

  // A count of `count` and more suffices for patterns up to this length.
  void admit(std::uint32_t count, std::uint32_t length) {
    const auto cut = static_cast<std::uint8_t>(std::min(length, kLongest));
    for (std::uint32_t c = std::min(count, kHighest); c <= kHighest; ++c) longest_[c] = std::max(longest_[c], cut);
  }

  // Calls visit(i) for every i < size whose count may suffice for its length.
  template <class Visit>
  void pass(const std::uint8_t* counts, const std::uint8_t* lengths, std::size_t size, Visit&& visit) const {
    std::size_t i = 0;
#ifdef __SSSE3__
    const __m128i longest = _mm_loadu_si128(reinterpret_cast<const __m128i*>(longest_.data()));
    const __m128i highest = _mm_set1_epi8(kHighest);
    for (; i + 16 <= size; i += 16) {
      const __m128i count = _mm_loadu_si128(reinterpret_cast<const __m128i*>(counts + i));
      const __m128i length = _mm_loadu_si128(reinterpret_cast<const __m128i*>(lengths + i));
      const __m128i limit = _mm_shuffle_epi8(longest, _mm_min_epu8(count, highest));
      const __m128i passed = _mm_cmpeq_epi8(_mm_min_epu8(length, limit), length);
      for (auto bits = static_cast<unsigned>(_mm_movemask_epi8(passed)); bits; bits &= bits - 1) {
        visit(i + static_cast<unsigned>(std::countr_zero(bits)));
      }
    }
#endif
    for (; i < size; ++i) {
      if (lengths[i] <= longest_[std::min<std::uint32_t>(counts[i], kHighest)]) visit(i);
    }
  }

 private:
  std::array<std::uint8_t, kHighest + 1> longest_{};  // by count; 0: no pattern is so short
};

}  // namespace kato
