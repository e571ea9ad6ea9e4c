#include "index.hpp"

#include <algorithm>
#include <numeric>
#include <thread>

#include "msgpack.hpp"

namespace kato {

namespace {

constexpr std::uint32_t kFewRemovals = 1024;  // not worth a compaction
constexpr std::size_t kLoadStep = 64;         // patterns that a load adds per lock

// A name that occurs twice among the patterns.
std::optional<Name> repeated_name(std::span<const StoredPattern> patterns) {
  const auto before = [](const Name* a, const Name* b) { return *a < *b; };
  std::vector<const Name*> names;
  names.reserve(patterns.size());
  for (const StoredPattern& pattern : patterns) names.push_back(&pattern.name);
  if (!std::is_sorted(names.begin(), names.end(), before)) std::sort(names.begin(), names.end(), before);
  const auto twice = std::adjacent_find(names.begin(), names.end(), [](auto* a, auto* b) { return *a == *b; });
  if (twice == names.end()) return std::nullopt;
  return **twice;
}

}  // namespace

Index::Lock Index::locked() const {
  ++waiting_;
  Lock lock(lock_);
  --waiting_;
  return lock;
}

Index::Reader::Reader(Index& index) : index_(index) {
  const Lock lock = index.locked();
  ++index.readers_;
}

Index::Reader::~Reader() {
  const Lock lock = index_.locked();
  --index_.readers_;
}

bool Index::insert(const Turn&, const Name& name, std::span<const Token> tokens, std::int64_t frequency,
                   std::uint8_t flags) {
  const Lock lock = locked();
  if (patterns_->find(name)) return false;
  patterns_->add(name, tokens, frequency, flags);
  compact_if_worthwhile();
  return true;
}

std::optional<Name> Index::load(const Turn&, std::span<const StoredPattern> patterns) {
  std::vector<Token> tokens;
  for (const StoredPattern& pattern : patterns) {
    tokens.clear();
    read_events(pattern.events, tokens);
  }
  if (const auto twice = repeated_name(patterns)) return twice;
  {
    const Lock lock = locked();
    for (const StoredPattern& pattern : patterns) {
      if (patterns_->find(pattern.name)) return pattern.name;
    }
  }
  while (!patterns.empty()) {
    const auto step = patterns.first(std::min(patterns.size(), kLoadStep));
    Lock lock = locked();
    for (const StoredPattern& pattern : step) {
      tokens.clear();
      read_events(pattern.events, tokens);
      patterns_->add(pattern.name, tokens, pattern.frequency, pattern.flags);
    }
    patterns = patterns.subspan(step.size());
    // A mutex is not fair: without this the others could wait until everything is loaded.
    lock.unlock();
    while (waiting_.load(std::memory_order_relaxed)) std::this_thread::yield();
  }
  return std::nullopt;
}

bool Index::set_frequency(const Turn&, const Name& name, std::int64_t frequency) {
  const Lock lock = locked();
  const auto id = patterns_->find(name);
  if (id) patterns_->set_frequency(*id, frequency);
  return id.has_value();
}

bool Index::set_flags(const Turn&, const Name& name, std::uint8_t flags) {
  const Lock lock = locked();
  const auto id = patterns_->find(name);
  if (id) patterns_->set_flags(*id, flags);
  return id.has_value();
}

bool Index::remove(const Turn&, const Name& name) {
  const Lock lock = locked();
  const auto id = patterns_->find(name);
  if (!id) return false;
  patterns_->remove(*id);
  compact_if_worthwhile();
  return true;
}

void Index::compact_if_worthwhile() {
  const std::uint32_t removed = patterns_->removals();
  if (removed < kFewRemovals || removed <= patterns_->count() / 2 || readers_ > 0) return;
  auto fresh = std::make_unique<Patterns>();
  patterns_->compact_into(*fresh);
  patterns_ = std::move(fresh);
  ++generation_;
}

Ensemble Index::search(const Reader&, const std::vector<std::string_view>& state, const Options& options) {
  Lock lock = locked();
  const Query query(*patterns_, state);
  lock.unlock();
  return figures(query, describe(*patterns_, query, kato::search(*patterns_, query, options)));
}

Ensemble Index::search_first(const Reader&, std::string_view symbol, std::uint32_t limit) {
  Lock lock = locked();
  const Query query(*patterns_, {symbol});
  PostingCursor starts;
  if (query.places[0] != Query::kUnknown) {
    const Symbol& first = patterns_->symbols()[query.known.symbols()[0]];
    if (first.starts) starts = PostingCursor(*first.starts);
  }
  lock.unlock();
  auto survivors = kato::search_first(*patterns_, starts, query.removals, limit);
  return figures(query, describe_first(*patterns_, survivors));
}

Ensemble Index::gather(const Reader&, std::span<const Name> names, const std::vector<std::string_view>& state) {
  Lock lock = locked();
  const Query query(*patterns_, state);
  std::vector<PatternId> ids;
  for (const Name& name : names) {
    if (const auto id = patterns_->find(name)) ids.push_back(*id);
  }
  lock.unlock();
  return figures(query, describe_unmatched(*patterns_, ids));
}

Ensemble Index::figures(const Query& query, Ensemble ensemble) const {
  const Lock lock = locked();
  read_figures(*patterns_, query, ensemble);
  return ensemble;
}

std::optional<PatternId> Index::find(const Name& name) const {
  const Lock lock = locked();
  return patterns_->find(name);
}

std::vector<PatternId> Index::holders(const std::optional<std::vector<std::string_view>>& symbols) const {
  Lock lock = locked();
  const PatternId count = patterns_->count();
  const std::uint32_t removals = patterns_->removals();
  std::vector<PostingCursor> lists;
  for (const std::string_view text : symbols.value_or(std::vector<std::string_view>())) {
    const SymbolId id = patterns_->symbols().find(text);
    if (id != kNoSymbol) lists.emplace_back(patterns_->symbols()[id].once.patterns);
  }
  lock.unlock();
  std::vector<PatternId> ids;
  if (symbols) {
    for (PostingCursor& list : lists) list.advance(count, [&](PatternId id) { ids.push_back(id); });
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  } else {
    ids.resize(count);
    std::iota(ids.begin(), ids.end(), PatternId{0});
  }
  std::erase_if(ids, [&](PatternId id) { return !(*patterns_)[id].lives_at(removals); });
  return ids;
}

std::vector<Name> Index::candidates(const Reader&, const std::optional<std::vector<std::string_view>>& symbols) {
  const std::vector<PatternId> ids = holders(symbols);
  std::vector<Name> names;
  names.reserve(ids.size());
  for (const PatternId id : ids) names.push_back((*patterns_)[id].name);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<Name> Index::page(const Reader&, const std::optional<std::string>& after, std::size_t limit,
                              const std::optional<std::string_view>& symbol, std::int64_t min_frequency) {
  std::vector<Name> names;
  std::optional<std::vector<std::string_view>> holding;
  if (symbol) holding.emplace(1, *symbol);
  for (const PatternId id : holders(holding)) {
    const Pattern& pattern = (*patterns_)[id];
    if (pattern.frequency_now() < min_frequency || (after && format_name(pattern.name) <= *after)) continue;
    names.push_back(pattern.name);
  }
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(limit, names.size()));
  std::partial_sort(names.begin(), end, names.end());
  names.erase(end, names.end());
  return names;
}

std::vector<SymbolId> Index::vocabulary(const Reader&) const {
  std::vector<SymbolId> ids;
  const Symbols& symbols = patterns_->symbols();
  Lock lock = locked();
  for (SymbolId id = 0; id < symbols.size(); ++id) {
    if (symbols[id].members) ids.push_back(id);
  }
  lock.unlock();
  // The order of UTF-8 bytes is the order of code points.
  std::sort(ids.begin(), ids.end(), [&](SymbolId a, SymbolId b) { return symbols[a].view() < symbols[b].view(); });
  return ids;
}

std::vector<std::pair<std::int64_t, std::uint32_t>> Index::symbol_statistics(
    const std::vector<std::string_view>& texts) const {
  std::vector<std::pair<std::int64_t, std::uint32_t>> statistics;
  const Lock lock = locked();
  for (const std::string_view text : texts) {
    const SymbolId id = patterns_->symbols().find(text);
    if (id == kNoSymbol) {
      statistics.emplace_back(0, 0);
    } else {
      const Symbol& symbol = patterns_->symbols()[id];
      statistics.emplace_back(symbol.frequency, symbol.members);
    }
  }
  return statistics;
}

Totals Index::totals() const {
  const Lock lock = locked();
  return patterns_->totals();
}

std::size_t Index::bytes() const {
  const Lock lock = locked();
  return sizeof *this + patterns_->bytes();
}

}  // namespace kato
