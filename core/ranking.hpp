// The best `limit` survivors seen so far.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "search.hpp"

namespace kato {

class Ranking {
 public:
  Ranking(const Patterns& patterns, std::uint32_t limit) : patterns_(patterns), limit_(limit) {}

  // Whether a survivor of that pre-potential could have a place.
  bool admits(double potential) const {
    return heap_.size() < limit_ || (limit_ > 0 && potential >= heap_.front().potential);
  }

  void offer(const Survivor& survivor) {
    const auto better = [this](const Survivor& a, const Survivor& b) {
      return a.potential != b.potential ? a.potential > b.potential : precedes(a, b);
    };
    if (heap_.size() < limit_) {
      heap_.push_back(survivor);
    } else if (limit_ > 0 && better(survivor, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.back() = survivor;
    } else {
      return;
    }
    std::push_heap(heap_.begin(), heap_.end(), better);
  }

  // All of them in ensemble order; the ranking is empty afterwards.
  std::vector<Survivor> take() {
    std::sort(heap_.begin(), heap_.end(), [this](const Survivor& a, const Survivor& b) { return precedes(a, b); });
    return std::move(heap_);
  }

 private:
  // Ensemble order: similarity descending, then name ascending.
  bool precedes(const Survivor& a, const Survivor& b) const {
    if (a.similarity != b.similarity) return a.similarity > b.similarity;
    return patterns_[a.pattern].name < patterns_[b.pattern].name;
  }

  const Patterns& patterns_;
  std::uint32_t limit_;
  std::vector<Survivor> heap_;  // the worst one in front
};

}  // namespace kato
