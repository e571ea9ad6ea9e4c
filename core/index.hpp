// The compiled index of one node: patterns behind locks.
//
// Two mutexes. `turn` is held by a writer from begin to end of a change and may be held long (a load); `lock_` guards
// every access to what changes and is held for moments only. A search takes `lock_` twice: to note where the posting
// lists of its state end, and to read the figures of its rows. Between the two it runs beside writers, because what it
// reads never moves (see Reader).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bounds.hpp"
#include "ensemble.hpp"
#include "patterns.hpp"

namespace kato {

// A pattern in stored form.
struct StoredPattern {
  Name name;
  std::string_view events;  // MessagePack
  std::int64_t frequency;
  std::uint8_t flags;
};

class Index {
 public:
  // A writer's turn; every change takes one as a proof.
  using Turn = std::unique_lock<std::mutex>;
  Turn turn() { return Turn(writers_); }
  Turn try_turn() { return Turn(writers_, std::try_to_lock); }

  // While it lives, nothing that was in the index is moved or freed.
  class Reader {
   public:
    explicit Reader(Index& index);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    const Patterns& patterns() const { return *index_.patterns_; }
    // Grows when a compaction gave symbols and patterns new numbers.
    std::uint64_t generation() const { return index_.generation_; }

   private:
    Index& index_;
  };

  // False when the name is already there.
  bool insert(const Turn&, const Name& name, std::span<const Token> tokens, std::int64_t frequency,
              std::uint8_t flags);
  // All or none of them. MalformedEvents for what is malformed; nothing is added when a name repeats (returns it).
  std::optional<Name> load(const Turn&, std::span<const StoredPattern> patterns);
  // False when there is no such pattern.
  bool set_frequency(const Turn&, const Name& name, std::int64_t frequency);
  bool set_flags(const Turn&, const Name& name, std::uint8_t flags);
  bool remove(const Turn&, const Name& name);

  // The answers name symbols and patterns by numbers that stay valid as long as the reader.
  Ensemble search(const Reader&, const std::vector<std::string_view>& state, const Options& options);
  Ensemble search_first(const Reader&, std::string_view symbol, std::uint32_t limit);
  Ensemble gather(const Reader&, std::span<const Name> names, const std::vector<std::string_view>& state);

  std::optional<PatternId> find(const Name& name) const;
  // Names of the patterns that hold one of the symbols (nothing given: of all), ascending.
  std::vector<Name> candidates(const Reader&, const std::optional<std::vector<std::string_view>>& symbols);
  // Up to `limit` names greater than the text `after`, ascending, that hold `symbol` and have the frequency.
  std::vector<Name> page(const Reader&, const std::optional<std::string>& after, std::size_t limit,
                         const std::optional<std::string_view>& symbol, std::int64_t min_frequency);
  std::vector<SymbolId> vocabulary(const Reader&) const;
  // (frequency, patterns that hold it)
  std::vector<std::pair<std::int64_t, std::uint32_t>> symbol_statistics(
      const std::vector<std::string_view>& symbols) const;
  Totals totals() const;
  std::size_t bytes() const;

 private:
  using Lock = std::unique_lock<std::mutex>;
  Lock locked() const;
  Ensemble figures(const Query& query, Ensemble ensemble) const;
  std::vector<PatternId> holders(const std::optional<std::vector<std::string_view>>& symbols) const;
  void compact_if_worthwhile();

  std::mutex writers_;
  mutable std::mutex lock_;
  mutable std::atomic<std::uint32_t> waiting_{0};  // for lock_
  std::uint32_t readers_ = 0;
  std::uint64_t generation_ = 0;
  std::unique_ptr<Patterns> patterns_ = std::make_unique<Patterns>();
};

}  // namespace kato
