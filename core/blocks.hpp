// Matching blocks, longest first: difflib's algorithm without junk rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kato {

// pattern[pattern : pattern + size] == state[state : state + size]
struct Block {
  std::uint32_t pattern;
  std::uint32_t state;
  std::uint32_t size;
};

class Blocks {
 public:
  // Turns all maximal common runs of two sequences into the matching blocks, in ascending order; `runs` is used up.
  //
  // The longest run (ties: smallest start in the pattern, then in the state) is a block. What remains is two smaller
  // windows, left and right of it in both sequences, with the runs cut to them: a maximal run cut to a window is
  // maximal in the window, so nothing has to be looked for again. Two blocks never touch in both sequences, because
  // together they would have been a longer run of the window in which the first of them was found.
  void select(std::vector<Block>& runs, std::vector<Block>& blocks);

 private:
  // Which runs lie in a window; nothing else of it matters.
  struct Window {
    std::size_t begin;
    std::size_t end;
  };

  std::vector<Window> waiting_;
};

}  // namespace kato
