#include "blocks.hpp"

#include <algorithm>
#include <cstddef>

namespace kato {

namespace {

bool better(const Block& a, const Block& b) {
  if (a.size != b.size) return a.size > b.size;
  return a.pattern != b.pattern ? a.pattern < b.pattern : a.state < b.state;
}

}  // namespace

void Blocks::select(std::vector<Block>& runs, std::vector<Block>& blocks) {
  blocks.clear();
  waiting_.clear();
  if (!runs.empty()) waiting_.push_back({0, runs.size()});
  while (!waiting_.empty()) {
    const Window window = waiting_.back();
    waiting_.pop_back();
    Block best = runs[window.begin];
    for (std::size_t i = window.begin + 1; i < window.end; ++i) {
      if (better(runs[i], best)) best = runs[i];
    }
    blocks.push_back(best);

    // What is left of the block gathers at the front, what is right of it at the back.
    std::size_t left = window.begin;
    std::size_t right = window.end;
    for (std::size_t i = window.begin; i < right;) {
      const Block run = runs[i];
      // No run is longer than the block, so it has a rest on one side of it at most.
      if (run.pattern < best.pattern && run.state < best.state) {
        const std::uint32_t room = std::min(best.pattern - run.pattern, best.state - run.state);
        runs[left++] = {run.pattern, run.state, std::min(run.size, room)};
        ++i;
        continue;
      }
      const std::uint32_t pattern_end = best.pattern + best.size;
      const std::uint32_t state_end = best.state + best.size;
      const std::uint32_t skipped = std::max(pattern_end > run.pattern ? pattern_end - run.pattern : 0,
                                             state_end > run.state ? state_end - run.state : 0);
      if (skipped < run.size) {
        runs[i] = runs[--right];
        runs[right] = {run.pattern + skipped, run.state + skipped, run.size - skipped};
      } else {
        ++i;
      }
    }
    if (left > window.begin) waiting_.push_back({window.begin, left});
    if (right < window.end) waiting_.push_back({right, window.end});
  }
  std::sort(blocks.begin(), blocks.end(), [](const Block& a, const Block& b) { return a.pattern < b.pattern; });
}

}  // namespace kato
