// Compares one pattern after another with a state: LCS, matching blocks, and where the present lies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "blocks.hpp"
#include "query.hpp"

namespace kato {

// Flat positions [begin, end) of the events of a prediction's present.
struct Present {
  std::uint32_t begin;
  std::uint32_t end;
};

class Matcher {
 public:
  explicit Matcher(const Query& query) : query_(query), column_(query.words), seen_(query.known.symbols().size()) {}

  // Whether two neighbours in the pattern are neighbours in the state, which must not exceed 64 symbols.
  bool has_run(std::span<const std::uint32_t> entries) const;

  // Takes up a pattern: the following members speak of it.
  void read(std::span<const std::uint32_t> entries);

  std::uint32_t lcs();
  const std::vector<Block>& blocks();

  // Distinct symbols that pattern and state share, and distinct symbols of the pattern.
  std::uint32_t shared_symbols();
  std::uint32_t distinct_symbols();

 private:
  // A symbol of the pattern that occurs in the state.
  struct Hit {
    std::uint32_t place;
    std::uint32_t number;
  };

  bool find_scattered();
  void find_runs();

  const Query& query_;
  std::span<const std::uint32_t> entries_;
  std::vector<Hit> hits_;
  std::vector<std::uint64_t> column_;
  std::vector<std::uint8_t> seen_;
  std::vector<SymbolId> sorted_;
  std::vector<Block> runs_;
  std::vector<Block> blocks_;
  Blocks selection_;
};

std::uint32_t matched_symbols(const std::vector<Block>& blocks);

// The events that hold the blocks, repaired as behaviour.md 8.5 says; everything when there is no block.
Present present_of(std::span<const std::uint32_t> entries, const std::vector<Block>& blocks);

std::uint32_t count_events(std::span<const std::uint32_t> entries);

}  // namespace kato
