#include "ensemble.hpp"

namespace kato {

namespace {

class Columns {
 public:
  explicit Columns(const Patterns& patterns) : patterns_(patterns), locals_(64) {
    rows_.match_offsets.push_back(0);
    rows_.present_offsets.push_back(0);
  }

  void add(PatternId id, std::uint32_t lcs, const std::vector<Block>& blocks) {
    const auto sequence = patterns_.sequence(id);
    const Present present = present_of(sequence, blocks);
    const auto inside = sequence.subspan(present.begin, present.end - present.begin);
    rows_.ids.push_back(id);
    rows_.length.push_back(static_cast<std::uint32_t>(sequence.size()));
    rows_.lcs.push_back(lcs);
    rows_.matched.push_back(matched_symbols(blocks));
    rows_.blocks.push_back(static_cast<std::uint32_t>(blocks.size()));
    rows_.past_events.push_back(count_events(sequence.first(present.begin)));
    rows_.present_events.push_back(count_events(inside));
    for (const Block& block : blocks) {
      for (std::uint32_t i = 0; i < block.size; ++i) rows_.match_positions.push_back(block.state + i);
    }
    rows_.match_offsets.push_back(static_cast<std::uint32_t>(rows_.match_positions.size()));
    for (const std::uint32_t entry : inside) rows_.present_symbols.push_back(locals_.add(symbol_of(entry)));
    rows_.present_offsets.push_back(static_cast<std::uint32_t>(rows_.present_symbols.size()));
  }

  Ensemble take() {
    rows_.local_symbols = locals_.symbols();
    return std::move(rows_);
  }

 private:
  const Patterns& patterns_;
  SymbolMap locals_;
  Ensemble rows_;
};

}  // namespace

Ensemble describe(const Patterns& patterns, const Query& query, const std::vector<Survivor>& survivors) {
  Columns columns(patterns);
  Matcher matcher(query);
  for (const Survivor& survivor : survivors) {
    matcher.read(patterns.sequence(survivor.pattern));
    columns.add(survivor.pattern, survivor.lcs, matcher.blocks());
  }
  return columns.take();
}

Ensemble describe_first(const Patterns& patterns, const std::vector<Survivor>& survivors) {
  Columns columns(patterns);
  for (const Survivor& survivor : survivors) columns.add(survivor.pattern, survivor.lcs, {{0, 0, 1}});
  return columns.take();
}

Ensemble describe_unmatched(const Patterns& patterns, std::span<const PatternId> ids) {
  Columns columns(patterns);
  for (const PatternId id : ids) columns.add(id, 0, {});
  return columns.take();
}

void read_figures(const Patterns& patterns, const Query& query, Ensemble& ensemble) {
  ensemble.totals = patterns.totals();
  for (const PatternId id : ensemble.ids) {
    ensemble.frequency.push_back(patterns[id].frequency);
    ensemble.flags.push_back(patterns[id].flags);
  }
  // The state's symbols follow those of the presents, unless the node has forgotten them meanwhile.
  SymbolMap locals(ensemble.local_symbols.size() + query.known.symbols().size());
  for (const SymbolId id : ensemble.local_symbols) locals.add(id);
  for (const std::uint32_t number : query.places) {
    std::int32_t local = -1;
    if (number != Query::kUnknown) {
      const SymbolId id = query.known.symbols()[number];
      const std::uint32_t found = patterns.symbols()[id].members ? locals.add(id) : locals.find(id);
      local = static_cast<std::int32_t>(found);
    }
    ensemble.state_symbols.push_back(local);
  }
  ensemble.local_symbols = locals.symbols();
  for (const SymbolId id : ensemble.local_symbols) {
    ensemble.member_frequency.push_back(patterns.symbols()[id].members);
  }
}

}  // namespace kato
