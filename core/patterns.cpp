#include "patterns.hpp"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace kato {

namespace {
constexpr std::uint32_t kMostPatterns = 0xFFFFFFFE;
}

std::optional<PatternId> Patterns::find(const Name& name) const {
  return names_.find(name, [&](PatternId id) -> const Name& { return patterns_[id].name; });
}

template <class Visit>
void Patterns::each_symbol(std::span<const std::uint32_t> entries, Visit&& visit) {
  sorted_.clear();
  for (const std::uint32_t entry : entries) sorted_.push_back(symbol_of(entry));
  std::sort(sorted_.begin(), sorted_.end());
  for (std::size_t i = 0; i < sorted_.size();) {
    std::size_t end = i + 1;
    while (end < sorted_.size() && sorted_[end] == sorted_[i]) ++end;
    visit(symbols_[sorted_[i]], static_cast<std::uint32_t>(end - i));
    i = end;
  }
  if (sorted_.capacity() > 4096) std::vector<SymbolId>().swap(sorted_);
}

void Patterns::add(const Name& name, std::span<const Token> tokens, std::int64_t frequency, std::uint8_t flags) {
  auto* entries = sequences_.array<std::uint32_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    entries[i] = symbols_.intern(tokens[i].text) | (tokens[i].starts_event ? kEventStart : 0);
  }
  store(name, entries, static_cast<std::uint32_t>(tokens.size()), frequency, flags);
}

void Patterns::store(const Name& name, std::uint32_t* entries, std::uint32_t length, std::int64_t frequency,
                     std::uint8_t flags) {
  if (count_ == kMostPatterns) throw std::length_error("too many patterns");
  const PatternId id = count_;
  new (&patterns_.reach(id)) Pattern{frequency, name, 0, flags};
  lengths_.reach(id) = length;
  cut_lengths_.reach(id) = static_cast<std::uint8_t>(std::min(length, 255u));
  entries_.reach(id) = entries;

  each_symbol({entries, length}, [&](Symbol& symbol, std::uint32_t occurrences) {
    Level* level = &symbol.once;
    for (std::uint32_t k = 1;; ++k) {
      level->patterns.append(id, id + 1, postings_, bitmaps_);
      if (k == occurrences) break;
      if (!level->next) level->next = new (postings_.allocate(sizeof(Level))) Level;
      level = level->next;
    }
    if (symbol.members++ == 0) ++totals_.symbols;
    symbol.frequency += frequency * occurrences;
  });
  Symbol& first = symbols_[symbol_of(entries[0])];
  if (!first.starts) first.starts = new (postings_.allocate(sizeof(PostingList))) PostingList;
  first.starts->append(id, id + 1, postings_, bitmaps_);

  extent_.shortest = std::min(extent_.shortest, length);
  extent_.longest = std::max(extent_.longest, length);
  for (std::uint32_t i = 0, start = 0; i < length; ++i) {
    if (starts_event(entries[i])) start = i;
    extent_.longest_event = std::max(extent_.longest_event, i - start + 1);
  }
  if (names_.is_full()) {
    names_.enlarge();
    for (PatternId held = 0; held < id; ++held) {
      if (!patterns_[held].removal) names_.insert(patterns_[held].name, held);
    }
  }
  names_.insert(name, id);
  ++totals_.patterns;
  totals_.frequency += frequency;
  totals_.occurrences += frequency * length;
  ++count_;
}

void Patterns::set_frequency(PatternId id, std::int64_t frequency) {
  Pattern& pattern = patterns_[id];
  const std::int64_t change = frequency - pattern.frequency;
  std::atomic_ref<std::int64_t>(pattern.frequency).store(frequency, std::memory_order_relaxed);
  for (const std::uint32_t entry : sequence(id)) symbols_[symbol_of(entry)].frequency += change;
  totals_.frequency += change;
  totals_.occurrences += change * length(id);
}

void Patterns::remove(PatternId id) {
  Pattern& pattern = patterns_[id];
  names_.erase(pattern.name, [&](PatternId held) -> const Name& { return patterns_[held].name; });
  std::atomic_ref<std::uint32_t>(pattern.removal).store(++removals_, std::memory_order_relaxed);
  each_symbol(sequence(id), [&](Symbol& symbol, std::uint32_t occurrences) {
    if (--symbol.members == 0) --totals_.symbols;
    symbol.frequency -= pattern.frequency * occurrences;
  });
  --totals_.patterns;
  totals_.frequency -= pattern.frequency;
  totals_.occurrences -= pattern.frequency * length(id);
}

void Patterns::compact_into(Patterns& fresh) const {
  std::vector<SymbolId> moved(symbols_.size(), kNoSymbol);
  for (PatternId id = 0; id < count_; ++id) {
    const Pattern& pattern = patterns_[id];
    if (pattern.removal) continue;
    auto* entries = fresh.sequences_.array<std::uint32_t>(length(id));
    auto* next = entries;
    for (const std::uint32_t entry : sequence(id)) {
      SymbolId& place = moved[symbol_of(entry)];
      if (place == kNoSymbol) place = fresh.symbols_.intern(symbols_[symbol_of(entry)].view());
      *next++ = place | (entry & kEventStart);
    }
    fresh.store(pattern.name, entries, length(id), pattern.frequency, pattern.flags);
  }
}

std::size_t Patterns::bytes() const {
  std::size_t total = sizeof *this + symbols_.bytes() + patterns_.bytes() + lengths_.bytes() + cut_lengths_.bytes() +
                      entries_.bytes() + names_.bytes() + sequences_.bytes() + postings_.bytes() +
                      sorted_.capacity() * sizeof(SymbolId) + bitmaps_.capacity() * sizeof(bitmaps_[0]);
  for (const auto& bitmap : bitmaps_) total += bitmap->bytes();
  return total;
}

}  // namespace kato
