// An array that grows without moving its elements: segment 0 holds 2^BaseBits of them, every further one as many
// as all before it together.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <type_traits>

namespace kato {

template <class T, unsigned BaseBits>
class Segments {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  Segments() = default;
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;
  ~Segments() {
    for (T* segment : segments_) std::free(segment);
  }

  // The element at `i`, whose segment must exist.
  T& operator[](std::uint32_t i) const { return load(number(i))[i - start(number(i))]; }

  // Address of the element at `i`, nullptr when its segment does not exist.
  T* find(std::uint32_t i) const {
    T* segment = load(number(i));
    return segment ? segment + (i - start(number(i))) : nullptr;
  }

  // The elements from `i` to the end of its segment, which must exist.
  std::span<T> from(std::uint32_t i) const {
    const unsigned n = number(i);
    const std::size_t skipped = i - start(n);
    return {load(n) + skipped, size(n) - skipped};
  }

  // The element at `i`; a new segment is made, all zero bytes, when it is the first of it.
  T& reach(std::uint32_t i) {
    const unsigned n = number(i);
    if (!segments_[n]) {
      T* fresh = static_cast<T*>(std::calloc(size(n), sizeof(T)));
      if (!fresh) throw std::bad_alloc();
      std::atomic_ref<T*>(segments_[n]).store(fresh, std::memory_order_release);
    }
    return segments_[n][i - start(n)];
  }

  // Bytes held by the segments.
  std::size_t bytes() const {
    std::size_t total = 0;
    for (unsigned n = 0; n < segments_.size(); ++n) {
      if (segments_[n]) total += size(n) * sizeof(T);
    }
    return total;
  }

 private:
  static unsigned number(std::uint32_t i) { return std::bit_width(i >> BaseBits); }
  static std::size_t start(unsigned n) { return n ? std::size_t{1} << (BaseBits + n - 1) : 0; }
  static std::size_t size(unsigned n) { return n ? start(n) : std::size_t{1} << BaseBits; }

  // A reader may look for a segment while the writer adds it.
  T* load(unsigned n) const {
    return std::atomic_ref<T*>(const_cast<T*&>(segments_[n])).load(std::memory_order_acquire);
  }

  std::array<T*, 33 - BaseBits> segments_{};
};

}  // namespace kato
