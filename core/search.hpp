// Which patterns resemble a state: counting, bounds, comparison, the best `limit` of them.
#pragma once

#include <cstdint>
#include <vector>

#include "bounds.hpp"
#include "matcher.hpp"
#include "query.hpp"

namespace kato {

// A surviving pattern.
struct Survivor {
  double potential;
  double similarity;
  PatternId pattern;
  std::uint32_t lcs;
};

// The survivors of `query`, in ensemble order. Runs beside a writer; the patterns must not be compacted meanwhile.
std::vector<Survivor> search(const Patterns& patterns, const Query& query, const Options& options);

// The survivors of a state of one symbol among the patterns of `starts`, all of which begin with it.
std::vector<Survivor> search_first(const Patterns& patterns, PostingCursor starts, std::uint32_t removals,
                                   std::uint32_t limit);

}  // namespace kato
