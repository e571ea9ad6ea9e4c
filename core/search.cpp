#include "search.hpp"

#include <algorithm>
#include <memory>

#include "ranking.hpp"
#include "sieve.hpp"
#include "tally.hpp"

namespace kato {

namespace {

constexpr std::size_t kAhead = 8;  // candidates whose sequences are fetched in advance

struct Candidate {
  PatternId pattern;
  std::uint32_t length;
};

class Search {
 public:
  Search(const Patterns& patterns, const Query& query, const Options& options)
      : patterns_(patterns), query_(query), options_(options), bounds_(options, query.length(), query.extent),
        matcher_(query), ranking_(patterns, options.limit) {}

  std::vector<Survivor> run();

 private:
  void choose_lists();
  void fill_sieve();
  template <class Tally>
  void collect();
  void select(const NarrowTally& tally, PatternId base, PatternId end);
  void select(const WideTally& tally, PatternId base, PatternId end);
  void consider(PatternId pattern, std::uint32_t overlap, bool may_run);
  void visit(const std::vector<Candidate>& bucket, std::uint32_t overlap, bool may_run);
  void prefetch(const Candidate& candidate) const;
  bool worth_comparing(const Candidate& candidate, std::uint32_t overlap, bool may_run);
  void compare(const Candidate& candidate);
  bool passes_filters();

  const Patterns& patterns_;
  const Query& query_;
  const Options& options_;
  Bounds bounds_;
  Matcher matcher_;
  Ranking ranking_;
  std::vector<PostingCursor> counted_;          // lists that are read
  std::vector<const Bitmap*> skipped_;          // lists that are looked up for the few patterns where it matters
  Sieve sieve_;
  // By multiset overlap, those that may have a run and those that have none.
  std::vector<std::vector<Candidate>> running_;
  std::vector<std::vector<Candidate>> scattered_;
};

void Search::choose_lists() {
  counted_ = query_.lists;
  std::sort(counted_.begin(), counted_.end(),
            [](const PostingCursor& a, const PostingCursor& b) { return a.size() < b.size(); });
  // A pattern that occurs only in fewer lists than the least overlap that survives cannot survive: so many of the
  // longest lists need not be read, if the others' candidates can be looked up in them.
  while (!counted_.empty() && counted_.back().bitmap() && skipped_.size() + 1 < bounds_.least_needed()) {
    skipped_.push_back(counted_.back().bitmap());
    counted_.pop_back();
  }
}

template <class Tally>
void Search::collect() {
  const auto tally = std::make_unique_for_overwrite<Tally>();
  for (PatternId base = 0; base < query_.patterns; base += kBlock) {
    const PatternId end = query_.patterns - base < kBlock ? query_.patterns : base + kBlock;
    tally->clear();
    for (PostingCursor& list : counted_) tally->add(list, base, end);
    for (const auto& [one, other] : query_.neighbours) {
      tally->mark_runs(query_.lists[one].bitmap(), query_.lists[other].bitmap(), base);
    }
    select(*tally, base, end);
    if (end == query_.patterns) break;
  }
}

void Search::fill_sieve() {
  const auto skipped = static_cast<std::uint32_t>(skipped_.size());
  const auto admit = [&](std::uint32_t length, std::uint32_t needed) {
    if (needed != Bounds::kNever) sieve_.admit(needed - std::min(needed, skipped), length);
  };
  const std::uint32_t longest = query_.extent.longest;
  for (std::uint32_t length = 1; length <= std::min(longest, Sieve::kLongest); ++length) {
    admit(length, bounds_.needed(length));
  }
  if (longest > Sieve::kLongest) admit(longest, bounds_.least_needed());
}

void Search::select(const NarrowTally& tally, PatternId base, PatternId end) {
  for (PatternId id = base; id < end;) {
    const auto lengths = patterns_.cut_lengths(id);
    const auto size = static_cast<std::uint32_t>(std::min<std::size_t>(lengths.size(), end - id));
    const std::uint32_t start = id - base;
    sieve_.pass(tally.counts.data() + start, lengths.data(), size, [&](std::size_t passed) {
      const std::uint32_t i = start + static_cast<std::uint32_t>(passed);
      consider(base + i, tally.counts[i], tally.may_run(i));
    });
    id += size;
  }
}

void Search::select(const WideTally& tally, PatternId base, PatternId end) {
  const std::uint32_t least = bounds_.least_needed() - static_cast<std::uint32_t>(skipped_.size());
  for (PatternId id = base; id < end; ++id) {
    if (tally.counts[id - base] >= least) consider(id, tally.counts[id - base], true);
  }
}

void Search::consider(PatternId pattern, std::uint32_t overlap, bool may_run) {
  const std::uint32_t length = patterns_.length(pattern);
  const std::uint32_t needed = bounds_.needed(length);
  if (needed == Bounds::kNever || overlap + skipped_.size() < needed) return;
  for (const Bitmap* list : skipped_) overlap += list->test(pattern);
  if (overlap >= needed) (may_run ? running_ : scattered_)[overlap].push_back({pattern, length});
}

bool Search::passes_filters() {
  if (options_.min_overlap == 0 && options_.min_jaccard <= 0.0) return true;
  const std::uint32_t shared = matcher_.shared_symbols();
  if (shared < options_.min_overlap) return false;
  if (options_.min_jaccard <= 0.0) return true;
  const double all = static_cast<double>(query_.distinct) + matcher_.distinct_symbols() - shared;
  return shared / all >= options_.min_jaccard - 1e-9;
}

void Search::prefetch(const Candidate& candidate) const {
  const std::uint32_t* entries = patterns_.entries(candidate.pattern);
  __builtin_prefetch(entries);
  __builtin_prefetch(entries + 16);
}

bool Search::worth_comparing(const Candidate& candidate, std::uint32_t overlap, bool may_run) {
  if (!ranking_.admits(bounds_.potential(overlap, candidate.length))) return false;
  if (query_.words != 1) return true;
  // Many pre-potentials are high only because of a single block: most patterns can be told not to have one.
  return ranking_.admits(bounds_.scattered_potential(overlap, candidate.length)) ||
         (may_run && matcher_.has_run({patterns_.entries(candidate.pattern), candidate.length}));
}

void Search::visit(const std::vector<Candidate>& bucket, std::uint32_t overlap, bool may_run) {
  for (std::size_t i = 0; i < bucket.size(); ++i) {
    if (may_run) {
      if (i + 2 * kAhead < bucket.size()) patterns_.prefetch_entries(bucket[i + 2 * kAhead].pattern);
      if (i + kAhead < bucket.size()) prefetch(bucket[i + kAhead]);
    }
    if (worth_comparing(bucket[i], overlap, may_run)) compare(bucket[i]);
  }
}

void Search::compare(const Candidate& candidate) {
  if (query_.removals && !patterns_[candidate.pattern].lives_at(query_.removals)) return;
  const std::span sequence(patterns_.entries(candidate.pattern), candidate.length);
  matcher_.read(sequence);
  if (!passes_filters()) return;
  const std::uint32_t lcs = matcher_.lcs();
  if (lcs < bounds_.needed(candidate.length)) return;
  if (!ranking_.admits(bounds_.potential(lcs, candidate.length))) return;
  const std::vector<Block>& blocks = matcher_.blocks();
  const Present present = present_of(sequence, blocks);
  const double potential =
      pre_potential(matched_symbols(blocks), query_.length(), candidate.length, present.end - present.begin,
                    static_cast<std::uint32_t>(blocks.size()));
  ranking_.offer({potential, similarity(lcs, query_.length(), candidate.length), candidate.pattern, lcs});
}

std::vector<Survivor> Search::run() {
  if (options_.limit == 0 || bounds_.least_needed() == Bounds::kNever) return {};
  choose_lists();
  fill_sieve();
  const auto most = static_cast<std::uint32_t>(query_.lists.size());
  running_.resize(most + 1);
  scattered_.resize(most + 1);
  if (most < 256) {
    collect<NarrowTally>();
  } else {
    collect<WideTally>();
  }
  // The largest overlaps and the patterns with runs first: they fill the ranking with high pre-potentials, which most
  // others cannot reach.
  for (std::uint32_t overlap = most + 1; overlap-- > 0;) visit(running_[overlap], overlap, true);
  for (std::uint32_t overlap = most + 1; overlap-- > 0;) visit(scattered_[overlap], overlap, false);
  return ranking_.take();
}

}  // namespace

std::vector<Survivor> search(const Patterns& patterns, const Query& query, const Options& options) {
  return Search(patterns, query, options).run();
}

std::vector<Survivor> search_first(const Patterns& patterns, PostingCursor starts, std::uint32_t removals,
                                   std::uint32_t limit) {
  Ranking ranking(patterns, limit);
  starts.advance(0xFFFFFFFF, [&](PatternId id) {
    if (!patterns[id].lives_at(removals)) return;
    const auto sequence = patterns.sequence(id);
    const auto length = static_cast<std::uint32_t>(sequence.size());
    std::uint32_t present = 1;
    while (present < length && !starts_event(sequence[present])) ++present;
    ranking.offer({pre_potential(1, 1, length, present, 1), similarity(1, 1, length), id, 1});
  });
  return ranking.take();
}

}  // namespace kato
