#include "matcher.hpp"

#include <algorithm>
#include <bit>

namespace kato {

bool Matcher::has_run(std::span<const std::uint32_t> entries) const {
  std::uint64_t runs = 0;
  std::uint64_t before = 0;
  for (const std::uint32_t entry : entries) {
    const std::uint64_t mask = *query_.mask(query_.number(symbol_of(entry)));
    runs |= mask & before << 1;
    before = mask;
  }
  return runs != 0;
}

void Matcher::read(std::span<const std::uint32_t> entries) {
  entries_ = entries;
  hits_.resize(entries.size());
  std::size_t count = 0;
  for (std::uint32_t place = 0; place < entries.size(); ++place) {
    const std::uint32_t number = query_.number(symbol_of(entries[place]));
    hits_[count] = {place, number};
    count += number != query_.none();
  }
  hits_.resize(count);
}

std::uint32_t Matcher::lcs() {
  // Bit-parallel: a zero bit marks a place of the state where the LCS grows by one.
  if (query_.words == 1) {
    std::uint64_t row = ~std::uint64_t{0};
    for (const Hit hit : hits_) {
      const std::uint64_t match = row & *query_.mask(hit.number);
      row = (row + match) | (row - match);
    }
    return static_cast<std::uint32_t>(std::popcount(~row));
  }
  std::fill(column_.begin(), column_.end(), ~std::uint64_t{0});
  for (const Hit hit : hits_) {
    const std::uint64_t* mask = query_.mask(hit.number);
    std::uint64_t carry = 0;
    for (std::uint32_t word = 0; word < query_.words; ++word) {
      const std::uint64_t row = column_[word];
      const std::uint64_t match = row & mask[word];
      const std::uint64_t partial = row + carry;
      const std::uint64_t sum = partial + match;
      carry = (partial < carry) | (sum < match);
      column_[word] = sum | (row - match);
    }
  }
  std::uint32_t length = 0;
  for (const std::uint64_t row : column_) length += static_cast<std::uint32_t>(std::popcount(~row));
  return length;
}

const std::vector<Block>& Matcher::blocks() {
  blocks_.clear();
  if (query_.words != 1 || !find_scattered()) {
    find_runs();
    selection_.select(runs_, blocks_);
  }
  return blocks_;
}

// Where no run is longer than one symbol the first match in the pattern is always the next block, so one pass finds
// all of them. False when there is a longer run.
bool Matcher::find_scattered() {
  std::uint64_t free = ~std::uint64_t{0};  // places of the state right of the latest block
  std::uint64_t before = 0;
  std::uint32_t next = 0;
  for (const Hit hit : hits_) {
    const std::uint64_t mask = *query_.mask(hit.number);
    if (hit.place == next && (before << 1 & mask)) return false;
    if (const std::uint64_t places = mask & free) {
      const auto place = static_cast<std::uint32_t>(std::countr_zero(places));
      blocks_.push_back({hit.place, place, 1});
      free = ~std::uint64_t{1} << place;
    }
    before = mask;
    next = hit.place + 1;
  }
  return true;
}

void Matcher::find_runs() {
  runs_.clear();
  const std::uint32_t state_length = query_.length();
  for (std::size_t i = 0; i < hits_.size(); ++i) {
    const Hit hit = hits_[i];
    const std::uint64_t* mask = query_.mask(hit.number);
    // A run starts where the symbols before it differ (or where one sequence begins).
    const bool adjacent = i > 0 && hits_[i - 1].place + 1 == hit.place;
    const std::uint64_t* before = adjacent ? query_.mask(hits_[i - 1].number) : nullptr;
    std::uint64_t carry = 0;
    for (std::uint32_t word = 0; word < query_.words; ++word) {
      std::uint64_t starts = mask[word];
      if (before) {
        starts &= ~(before[word] << 1 | carry);
        carry = before[word] >> 63;
      }
      for (; starts; starts &= starts - 1) {
        const std::uint32_t place = word * 64 + static_cast<std::uint32_t>(std::countr_zero(starts));
        std::uint32_t size = 1;
        while (i + size < hits_.size() && hits_[i + size].place == hit.place + size && place + size < state_length &&
               query_.places[place + size] == hits_[i + size].number) {
          ++size;
        }
        runs_.push_back({hit.place, place, size});
      }
    }
  }
}

std::uint32_t Matcher::shared_symbols() {
  std::uint32_t count = 0;
  for (const Hit hit : hits_) count += !seen_[hit.number], seen_[hit.number] = 1;
  for (const Hit hit : hits_) seen_[hit.number] = 0;
  return count;
}

std::uint32_t Matcher::distinct_symbols() {
  sorted_.clear();
  for (const std::uint32_t entry : entries_) sorted_.push_back(symbol_of(entry));
  std::sort(sorted_.begin(), sorted_.end());
  return static_cast<std::uint32_t>(std::unique(sorted_.begin(), sorted_.end()) - sorted_.begin());
}

std::uint32_t matched_symbols(const std::vector<Block>& blocks) {
  std::uint32_t count = 0;
  for (const Block& block : blocks) count += block.size;
  return count;
}

Present present_of(std::span<const std::uint32_t> entries, const std::vector<Block>& blocks) {
  const auto length = static_cast<std::uint32_t>(entries.size());
  if (blocks.empty()) return {0, length};
  const std::uint32_t first = blocks.front().pattern;
  std::uint32_t begin = first;
  std::uint32_t end = blocks.back().pattern + blocks.back().size;
  while (end < length && !starts_event(entries[end])) ++end;
  if (!starts_event(entries[begin])) {
    // The past's last event is cut by the border and so holds the first match: it belongs to the present.
    while (!starts_event(entries[begin])) --begin;
    return {begin, end};
  }
  // The border is clean, but the event before it moves too if it contains the first match.
  bool contains = false;
  std::uint32_t before = begin;
  while (before > 0) {
    --before;
    contains |= symbol_of(entries[before]) == symbol_of(entries[first]);
    if (starts_event(entries[before])) break;
  }
  return {contains ? before : begin, end};
}

std::uint32_t count_events(std::span<const std::uint32_t> entries) {
  return static_cast<std::uint32_t>(std::count_if(entries.begin(), entries.end(), starts_event));
}

}  // namespace kato
