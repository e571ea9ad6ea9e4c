#include "query.hpp"

#include <algorithm>
#include <bit>

namespace kato {

namespace {
constexpr std::uint32_t kMostDirect = 1 << 16;  // a larger table would not stay in the cache
}

SymbolMap::SymbolMap(std::size_t expected) {
  resize(std::max(6u, static_cast<unsigned>(std::bit_width(expected)) + 2));
}

void SymbolMap::resize(unsigned bits) {
  slots_.assign(std::size_t{1} << bits, Slot{});
  mask_ = slots_.size() - 1;
  shift_ = 32 - bits;
  for (std::uint32_t number = 0; number < symbols_.size(); ++number) place(symbols_[number], number);
}

void SymbolMap::place(SymbolId symbol, std::uint32_t number) {
  std::size_t at = home(symbol);
  while (slots_[at].symbol != kNoSymbol) at = (at + 1) & mask_;
  slots_[at] = {symbol, number};
}

std::uint32_t SymbolMap::add(SymbolId symbol) {
  if (const std::uint32_t number = find(symbol); number != kNone) return number;
  if (symbols_.size() * 4 >= slots_.size()) resize(static_cast<unsigned>(std::bit_width(slots_.size())));
  const auto number = static_cast<std::uint32_t>(symbols_.size());
  symbols_.push_back(symbol);
  place(symbol, number);
  return number;
}

Query::Query(const Patterns& index, const std::vector<std::string_view>& state) : known(state.size()) {
  std::vector<const Level*> deeper;  // by number: the level of the symbol's next occurrence
  std::vector<std::uint32_t> holders;  // by number: the first list of the symbol
  std::vector<std::string_view> texts(state);
  std::sort(texts.begin(), texts.end());
  distinct = static_cast<std::uint32_t>(std::unique(texts.begin(), texts.end()) - texts.begin());

  for (const std::string_view text : state) {
    const SymbolId id = index.symbols().find(text);
    if (id == kNoSymbol || index.symbols()[id].members == 0) {
      places.push_back(kUnknown);
      continue;
    }
    const std::uint32_t number = known.add(id);
    places.push_back(number);
    if (number == deeper.size()) deeper.push_back(&index.symbols()[id].once);
    if (number == holders.size()) holders.push_back(static_cast<std::uint32_t>(lists.size()));
    if (const Level* level = deeper[number]) {
      lists.emplace_back(level->patterns);
      deeper[number] = level->next;
    }
    const std::uint32_t before = places.size() > 1 ? places[places.size() - 2] : kUnknown;
    if (before != kUnknown) neighbours.emplace_back(holders[before], holders[number]);
  }
  words = (length() + 63) / 64;
  masks.assign((none() + std::size_t{1}) * words, 0);
  for (std::uint32_t place = 0; place < length(); ++place) {
    if (places[place] == kUnknown) continue;
    masks[std::size_t{places[place]} * words + place / 64] |= std::uint64_t{1} << place % 64;
  }
  if (none() < 256 && index.symbols().size() <= kMostDirect) {
    direct.assign(index.symbols().size(), static_cast<std::uint8_t>(none()));
    for (std::uint32_t number = 0; number < none(); ++number) {
      direct[known.symbols()[number]] = static_cast<std::uint8_t>(number);
    }
  }
  patterns = index.count();
  removals = index.removals();
  extent = index.extent();
}

}  // namespace kato
