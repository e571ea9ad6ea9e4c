// Writers and readers on one index, for the thread sanitizer: it must find nothing, and every answer must make sense.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "index.hpp"

using namespace kato;

namespace {

constexpr std::uint32_t kPatterns = 150'000;
constexpr std::uint32_t kLasting = 40'000;  // those below stay

Name name_of(std::uint32_t number) {
  Name name{};
  for (int i = 0; i < 4; ++i) name[19 - i] = static_cast<std::uint8_t>(number >> (8 * i));
  return name;
}

void insert(Index& index, std::uint32_t number, const std::vector<std::string>& texts) {
  const std::vector<Token> tokens{{"common", true},
                                  {texts[number % 50], false},
                                  {texts[50 + number % 500], true},
                                  {texts[550 + number % 5000], true}};
  if (!index.insert(index.turn(), name_of(number), tokens, 1, 0)) std::abort();
}

void keep_writing(Index& index, std::uint32_t first, const std::vector<std::string>& texts) {
  for (std::uint32_t number = first; number < kPatterns; number += 2) {
    insert(index, number, texts);
    index.set_frequency(index.turn(), name_of(number), 2);
    if (number >= kLasting && !index.remove(index.turn(), name_of(number))) std::abort();
  }
}

void keep_searching(Index& index, const std::atomic<bool>& finished) {
  const std::vector<std::string_view> state{"common", "s7", "s57", "unknown"};
  std::uint32_t seen = 0;  // patterns that stay; beside them there are two at most
  for (double threshold = 0.0; !finished; threshold = threshold > 0.5 ? 0.0 : threshold + 0.1) {
    const Index::Reader reader(index);
    Options options;
    options.threshold = threshold;
    options.limit = 300;
    const Ensemble found = index.search(reader, state, options);
    if (found.totals.patterns + 2 < seen) std::abort();
    seen = std::min(found.totals.patterns, kLasting);
    for (const PatternId id : found.ids) {
      if (reader.patterns().length(id) != 4) std::abort();
    }
    index.search_first(reader, "common", 10);
    index.candidates(reader, std::vector<std::string_view>{"s3"});
    index.page(reader, std::nullopt, 5, std::nullopt, 2);
    index.vocabulary(reader);
    index.symbol_statistics(state);
  }
}

}  // namespace

int main() {
  std::vector<std::string> texts;
  for (int i = 0; i < 5550; ++i) texts.push_back("s" + std::to_string(i));
  Index index;
  std::atomic<bool> finished{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) readers.emplace_back(keep_searching, std::ref(index), std::cref(finished));
  std::thread odd(keep_writing, std::ref(index), 1, std::cref(texts));
  keep_writing(index, 0, texts);
  odd.join();
  finished = true;
  for (std::thread& reader : readers) reader.join();
  if (index.totals().patterns != kLasting) std::abort();
  std::puts("stress passed");
}
