// The formulas that decide which patterns survive a search and in which order they are pruned, and bounds of them.
#pragma once

#include <cstdint>
#include <vector>

#include "patterns.hpp"

namespace kato {

struct Options {
  double threshold = 0.0;
  std::uint32_t limit = 0;
  std::uint32_t min_length = 0;
  std::uint32_t max_length = 0xFFFFFFFF;
  std::uint32_t min_overlap = 0;
  double min_jaccard = 0.0;

  bool keeps_unmatched() const { return threshold <= 0.0; }
};

// 2L / (n + m) for a state of n symbols and a pattern of m.
double similarity(std::uint32_t lcs, std::uint32_t state, std::uint32_t pattern);

// (evidence + confidence) * snr + frag, in doubles exactly in this order: the same bits on every machine.
double pre_potential(std::uint32_t matched, std::uint32_t state, std::uint32_t pattern, std::uint32_t present,
                     std::uint32_t blocks);

class Bounds {
 public:
  static constexpr std::uint32_t kNever = 0xFFFFFFFF;

  // For a state of `state` symbols.
  Bounds(const Options& options, std::uint32_t state, const Extent& extent);

  // The smallest LCS with which a pattern of `pattern` symbols survives, kNever when none suffices.
  std::uint32_t needed(std::uint32_t pattern) const {
    return pattern < needed_.size() ? needed_[pattern] : beyond(pattern);
  }

  // The smallest `needed` of all patterns of the index.
  std::uint32_t least_needed() const { return least_; }

  // The greatest pre-potential of a pattern of `pattern` symbols, at most `overlap` of which match. Attained by
  // nothing greater in doubles either: every step of the formula rounds monotonously.
  double potential(std::uint32_t overlap, std::uint32_t pattern) {
    return remembered(potentials_, overlap, pattern, &Bounds::compute_potential);
  }

  // The same for a pattern no two neighbours of which are neighbours in the state: all its blocks have size 1.
  double scattered_potential(std::uint32_t overlap, std::uint32_t pattern) {
    return remembered(scattered_, overlap, pattern, &Bounds::compute_scattered);
  }

 private:
  using Compute = double (Bounds::*)(std::uint32_t, std::uint32_t) const;

  std::uint32_t compute_needed(std::uint32_t pattern) const;
  std::uint32_t beyond(std::uint32_t pattern) const;
  double compute_potential(std::uint32_t overlap, std::uint32_t pattern) const;
  double compute_scattered(std::uint32_t overlap, std::uint32_t pattern) const;
  double remembered(std::vector<double>& memory, std::uint32_t overlap, std::uint32_t pattern, Compute compute);

  Options options_;
  std::uint32_t state_;
  std::uint32_t longest_event_;
  std::uint32_t least_ = kNever;
  std::vector<std::uint32_t> needed_;  // by pattern length
  std::vector<double> potentials_;     // by overlap and pattern length
  std::vector<double> scattered_;      // likewise
  std::uint32_t row_ = 0;              // of these two
};

}  // namespace kato
