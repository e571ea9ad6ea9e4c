// Everything an index holds, without locks: patterns, symbols, posting lists and totals.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "arena.hpp"
#include "names.hpp"
#include "postings.hpp"
#include "segments.hpp"
#include "symbols.hpp"

namespace kato {

// A pattern is stored flat; the first symbol of every event carries this mark.
constexpr std::uint32_t kEventStart = 0x80000000;

inline SymbolId symbol_of(std::uint32_t entry) { return entry & ~kEventStart; }
inline bool starts_event(std::uint32_t entry) { return entry & kEventStart; }

// What is known of a pattern beside its sequence.
struct Pattern {
  std::int64_t frequency;  // changes: read it under the index lock, or by frequency_now()
  Name name;
  std::uint32_t removal;  // the number of its removal, 0 while it is there
  std::uint8_t flags;     // changes: read it under the index lock

  std::int64_t frequency_now() const {
    return std::atomic_ref<std::int64_t>(const_cast<std::int64_t&>(frequency)).load(std::memory_order_relaxed);
  }

  // Whether it was there when `removals` removals had happened.
  bool lives_at(std::uint32_t removals) const {
    const auto at = std::atomic_ref<std::uint32_t>(const_cast<std::uint32_t&>(removal)).load(std::memory_order_relaxed);
    return at == 0 || at > removals;
  }
};

// One symbol of a sequence of events, before it has a number.
struct Token {
  std::string_view text;
  bool starts_event;
};

struct Totals {
  std::uint32_t patterns = 0;
  std::uint32_t symbols = 0;
  std::int64_t frequency = 0;
  std::int64_t occurrences = 0;
};

// What bounds every pattern that was ever added.
struct Extent {
  std::uint32_t shortest = 0xFFFFFFFF;
  std::uint32_t longest = 0;
  std::uint32_t longest_event = 0;
};

class Patterns {
 public:
  std::optional<PatternId> find(const Name& name) const;

  // The name must be new, the tokens must not be empty and the first one must start an event.
  void add(const Name& name, std::span<const Token> tokens, std::int64_t frequency, std::uint8_t flags);
  void set_frequency(PatternId id, std::int64_t frequency);
  void set_flags(PatternId id, std::uint8_t flags) { patterns_[id].flags = flags; }
  void remove(PatternId id);

  // A copy without the removed patterns and their symbols.
  void compact_into(Patterns& fresh) const;

  const Pattern& operator[](PatternId id) const { return patterns_[id]; }
  std::uint32_t length(PatternId id) const { return lengths_[id]; }
  // Lengths, cut to one byte, of the pattern `id` and as many after it as lie in one piece.
  std::span<const std::uint8_t> cut_lengths(PatternId id) const { return cut_lengths_.from(id); }
  void prefetch_entries(PatternId id) const { __builtin_prefetch(&entries_[id]); }
  const std::uint32_t* entries(PatternId id) const { return entries_[id]; }
  std::span<const std::uint32_t> sequence(PatternId id) const { return {entries(id), length(id)}; }
  const Symbols& symbols() const { return symbols_; }
  std::uint32_t count() const { return count_; }        // removed ones included
  std::uint32_t removals() const { return removals_; }
  const Totals& totals() const { return totals_; }
  const Extent& extent() const { return extent_; }
  std::size_t bytes() const;

 private:
  void store(const Name& name, std::uint32_t* entries, std::uint32_t length, std::int64_t frequency,
             std::uint8_t flags);
  // Calls visit(symbol, occurrences) for every distinct symbol.
  template <class Visit>
  void each_symbol(std::span<const std::uint32_t> entries, Visit&& visit);

  Symbols symbols_;
  Segments<Pattern, 4> patterns_;
  // Apart from the rest, because a search reads nothing else of most patterns.
  Segments<std::uint32_t, 4> lengths_;
  Segments<std::uint8_t, 4> cut_lengths_;
  Segments<const std::uint32_t*, 4> entries_;
  NameTable names_;
  Arena sequences_;
  Arena postings_;
  Bitmaps bitmaps_;
  std::vector<SymbolId> sorted_;  // scratch
  std::uint32_t count_ = 0;
  std::uint32_t removals_ = 0;
  Totals totals_;
  Extent extent_;
};

}  // namespace kato
