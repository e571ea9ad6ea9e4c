// The answer of a search as columns, one row per surviving pattern.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "query.hpp"
#include "search.hpp"

namespace kato {

struct Ensemble {
  Totals totals;
  std::vector<PatternId> ids;
  std::vector<std::int64_t> frequency;
  std::vector<std::uint8_t> flags;
  std::vector<std::uint32_t> length;
  std::vector<std::uint32_t> lcs;
  std::vector<std::uint32_t> matched;
  std::vector<std::uint32_t> blocks;
  std::vector<std::uint32_t> past_events;
  std::vector<std::uint32_t> present_events;
  std::vector<std::uint32_t> match_offsets;
  std::vector<std::uint32_t> match_positions;
  std::vector<std::uint32_t> present_offsets;
  std::vector<std::uint32_t> present_symbols;
  std::vector<SymbolId> local_symbols;
  std::vector<std::uint32_t> member_frequency;
  std::vector<std::int32_t> state_symbols;
};

// Everything about the survivors that does not change; the rest is filled in by `read_figures`.
Ensemble describe(const Patterns& patterns, const Query& query, const std::vector<Survivor>& survivors);

// The same for the survivors of a state of one symbol: it matches the first symbol, the present is the first event.
Ensemble describe_first(const Patterns& patterns, const std::vector<Survivor>& survivors);

// The same for patterns that are not compared with the state: no matches, everything is present.
Ensemble describe_unmatched(const Patterns& patterns, std::span<const PatternId> ids);

// Frequencies, flags, symbol statistics and totals, all of this moment: call it under the index lock.
void read_figures(const Patterns& patterns, const Query& query, Ensemble& ensemble);

}  // namespace kato
