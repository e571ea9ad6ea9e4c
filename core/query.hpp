// A state prepared for searching: its symbols numbered from 0, the places of each as bit masks, its posting lists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "patterns.hpp"

namespace kato {

// Maps symbols to small numbers; open addressing, sparse enough that a miss mostly costs one look.
class SymbolMap {
 public:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

  explicit SymbolMap(std::size_t expected = 0);

  std::uint32_t find(SymbolId symbol) const {
    for (std::size_t at = home(symbol);; at = (at + 1) & mask_) {
      if (slots_[at].symbol == symbol) return slots_[at].number;
      if (slots_[at].symbol == kNoSymbol) return kNone;
    }
  }

  // The number of the symbol; a new one gets the next number.
  std::uint32_t add(SymbolId symbol);

  // The symbols in order of their numbers.
  const std::vector<SymbolId>& symbols() const { return symbols_; }

 private:
  struct Slot {
    SymbolId symbol = kNoSymbol;
    std::uint32_t number = 0;
  };

  std::size_t home(SymbolId symbol) const { return (symbol * 0x9E3779B1u) >> shift_; }
  void resize(unsigned bits);
  void place(SymbolId symbol, std::uint32_t number);

  std::vector<Slot> slots_;
  std::vector<SymbolId> symbols_;
  std::size_t mask_ = 0;
  unsigned shift_ = 0;
};

// The patterns that hold a symbol at least k times, for one of the first k of its occurrences in the state.
using OccurrenceLists = std::vector<PostingCursor>;

struct Query {
  static constexpr std::uint32_t kUnknown = SymbolMap::kNone;

  // Reads the symbol table and the heads of the posting lists: call it under the index lock.
  Query(const Patterns& patterns, const std::vector<std::string_view>& state);

  std::uint32_t length() const { return static_cast<std::uint32_t>(places.size()); }
  const std::uint64_t* mask(std::uint32_t number) const { return masks.data() + std::size_t{number} * words; }

  // The number that stands for every symbol that the state does not hold; its mask is empty.
  std::uint32_t none() const { return static_cast<std::uint32_t>(known.symbols().size()); }

  // Number of a pattern's symbol.
  std::uint32_t number(SymbolId symbol) const {
    return direct.empty() ? std::min(known.find(symbol), none()) : direct[symbol];
  }

  SymbolMap known;                    // the distinct symbols of the state that the node knows
  std::vector<std::uint32_t> places;  // number of each symbol of the state, kUnknown for an unknown one
  std::vector<std::uint8_t> direct;   // number(symbol) for all symbols of the node, if there are not too many
  std::vector<std::uint64_t> masks;   // for each number the places that hold it, `words` words
  std::uint32_t words = 0;
  std::uint32_t distinct = 0;         // distinct symbols of the state, unknown ones included
  OccurrenceLists lists;
  // For every two neighbours in the state that the node knows, where `lists` has the patterns that hold them.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> neighbours;

  // As of the same moment.
  PatternId patterns = 0;
  std::uint32_t removals = 0;
  Extent extent;
};

}  // namespace kato
