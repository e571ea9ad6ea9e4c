// The symbols of a node: text <-> number, statistics and posting lists.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "arena.hpp"
#include "postings.hpp"
#include "segments.hpp"

namespace kato {

using SymbolId = std::uint32_t;
constexpr SymbolId kNoSymbol = 0xFFFFFFFF;

// The patterns that hold a symbol at least k times, k = 1 for the first level. Adding up the levels up to the
// symbol's count in a state gives the multiset overlap of state and pattern.
struct Level {
  PostingList patterns;
  Level* next = nullptr;
};

struct Symbol {
  const char* text = nullptr;
  std::uint32_t size = 0;
  std::uint32_t members = 0;    // patterns that hold it, removed ones not counted
  std::int64_t frequency = 0;   // sum over those of frequency times occurrences
  Level once;
  PostingList* starts = nullptr;  // patterns whose first symbol it is

  std::string_view view() const { return {text, size}; }
};

class Symbols {
 public:
  // kNoSymbol when the text was never interned.
  SymbolId find(std::string_view text) const;
  SymbolId intern(std::string_view text);

  Symbol& operator[](SymbolId id) const { return symbols_[id]; }
  std::uint32_t size() const { return count_; }
  std::size_t bytes() const;

 private:
  struct Slot {
    std::uint32_t hash = 0;
    SymbolId id = kNoSymbol;
  };

  std::size_t place(std::string_view text, std::uint32_t hash) const;
  void grow();

  Segments<Symbol, 4> symbols_;
  std::vector<Slot> slots_;  // open addressing, linear probing, a power of two
  std::uint32_t count_ = 0;
  Arena text_;
};

}  // namespace kato
