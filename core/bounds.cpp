#include "bounds.hpp"

#include <algorithm>
#include <cmath>

namespace kato {

namespace {

constexpr double kTolerance = 1e-9;  // a similarity that equals the threshold passes in spite of rounding
constexpr std::size_t kMemory = 1 << 16;
constexpr double kUnknown = -1e300;

}  // namespace

double similarity(std::uint32_t lcs, std::uint32_t state, std::uint32_t pattern) {
  return 2.0 * lcs / (static_cast<double>(state) + pattern);
}

double pre_potential(std::uint32_t matched, std::uint32_t state, std::uint32_t pattern, std::uint32_t present,
                     std::uint32_t blocks) {
  const double hits = matched;
  const double extras = static_cast<double>(state) - hits;
  const double evidence = hits / pattern;
  const double confidence = present ? hits / present : 0.0;
  const double scale = 2.0 * hits + extras;
  const double snr = scale != 0.0 ? (2.0 * hits - extras) / scale : 0.0;
  const double frag = blocks ? 1.0 / blocks : 0.0;
  return (evidence + confidence) * snr + frag;
}

Bounds::Bounds(const Options& options, std::uint32_t state, const Extent& extent)
    : options_(options), state_(state), longest_event_(extent.longest_event) {
  std::uint32_t longest = std::min(extent.longest, options.max_length);
  if (!options.keeps_unmatched()) {
    // 2 min(n, m) / (n + m) bounds the similarity, so far longer patterns need not be listed.
    const double least = options.threshold - kTolerance;
    const double reach = least > 0.0 ? state * (2.0 - least) / least + 2.0 : longest;
    longest = static_cast<std::uint32_t>(std::clamp(reach, 0.0, static_cast<double>(longest)));
    needed_.reserve(longest + std::size_t{1});
    for (std::uint32_t length = 0; length <= longest; ++length) needed_.push_back(compute_needed(length));
  }
  for (std::uint32_t length = std::max(extent.shortest, options.min_length); length <= longest; ++length) {
    least_ = std::min(least_, needed(length));
    if (least_ != kNever) break;  // it grows with the length
  }
  row_ = longest + 1;
  const std::size_t overlaps = static_cast<std::size_t>(std::min(state, longest)) + 1;
  if (row_ != 0 && overlaps <= kMemory / row_) {
    potentials_.assign(overlaps * row_, kUnknown);
    scattered_.assign(overlaps * row_, kUnknown);
  }
}

std::uint32_t Bounds::compute_needed(std::uint32_t pattern) const {
  if (pattern < options_.min_length || pattern > options_.max_length || pattern == 0) return kNever;
  const double least = options_.threshold - kTolerance;
  const std::uint32_t most = std::min(state_, pattern);
  const auto enough = [&](std::uint32_t lcs) { return similarity(lcs, state_, pattern) >= least; };
  if (most == 0 || !enough(most)) return kNever;
  const double guess = std::floor(least * (static_cast<double>(state_) + pattern) / 2.0);
  auto lcs = static_cast<std::uint32_t>(std::clamp(guess, 1.0, static_cast<double>(most)));
  while (!enough(lcs)) ++lcs;
  while (lcs > 1 && enough(lcs - 1)) --lcs;  // at least one symbol must match
  return lcs;
}

std::uint32_t Bounds::beyond(std::uint32_t pattern) const {
  const bool kept = options_.keeps_unmatched() && pattern >= options_.min_length && pattern <= options_.max_length;
  return kept ? 0 : kNever;
}

double Bounds::remembered(std::vector<double>& memory, std::uint32_t overlap, std::uint32_t pattern,
                          Compute compute) {
  const std::size_t place = static_cast<std::size_t>(overlap) * row_ + pattern;
  if (pattern >= row_ || place >= memory.size()) return (this->*compute)(overlap, pattern);
  double& known = memory[place];
  if (known == kUnknown) known = (this->*compute)(overlap, pattern);
  return known;
}

double Bounds::compute_potential(std::uint32_t overlap, std::uint32_t pattern) const {
  constexpr std::uint32_t kTried = 16;
  if (overlap == 0) return 0.0;
  // With 3k >= n the snr is not negative: all matches in one block that fills the present is the best case, it is at
  // least 1 and grows with k. With a negative snr the value is less than 1, and the larger the present the better.
  if (3ull * overlap >= state_) return pre_potential(overlap, state_, pattern, overlap, 1);
  if (overlap > kTried) return 1.0;
  double best = kUnknown;
  for (std::uint32_t k = 1; k <= overlap; ++k) {
    // One block of k symbols touches k events at most, and the repair of the past adds one; it adds none to a single
    // match, which is the first occurrence of its symbol in the pattern.
    const std::uint64_t events = k == 1 ? 1 : k + 1ull;
    const auto present = static_cast<std::uint32_t>(std::min<std::uint64_t>(pattern, events * longest_event_));
    best = std::max(best, pre_potential(k, state_, pattern, present, 1));
    if (k > 1) best = std::max(best, pre_potential(k, state_, pattern, pattern, 2));
  }
  return best;
}

double Bounds::compute_scattered(std::uint32_t overlap, std::uint32_t pattern) const {
  if (overlap == 0) return 0.0;
  double best = kUnknown;
  for (std::uint32_t k = 1; k <= overlap; ++k) {
    // With a positive snr a small present is best, with a negative one a large; a single match is in one event.
    const std::uint32_t large = k == 1 ? std::min(pattern, longest_event_) : pattern;
    const std::uint32_t present = 3ull * k >= state_ ? k : large;
    best = std::max(best, pre_potential(k, state_, pattern, present, k));
  }
  return best;
}

}  // namespace kato
