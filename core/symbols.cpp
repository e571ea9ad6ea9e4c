#include "symbols.hpp"

#include <cstring>
#include <new>
#include <stdexcept>

namespace kato {

namespace {

constexpr std::uint32_t kMostSymbols = 0x7FFFFFFF;  // patterns use the highest bit for the start of an event

std::uint32_t hash_text(std::string_view text) {
  std::uint64_t hash = text.size() * 0x9E3779B97F4A7C15ull;
  while (!text.empty()) {
    std::uint64_t word = 0;
    const std::size_t taken = std::min<std::size_t>(text.size(), 8);
    std::memcpy(&word, text.data(), taken);
    hash = (hash ^ word) * 0xFF51AFD7ED558CCDull;
    hash ^= hash >> 32;
    text.remove_prefix(taken);
  }
  return static_cast<std::uint32_t>(hash ^ hash >> 29);
}

}  // namespace

std::size_t Symbols::place(std::string_view text, std::uint32_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  while (slots_[at].id != kNoSymbol && (slots_[at].hash != hash || symbols_[slots_[at].id].view() != text)) {
    at = (at + 1) & mask;
  }
  return at;
}

SymbolId Symbols::find(std::string_view text) const {
  return slots_.empty() ? kNoSymbol : slots_[place(text, hash_text(text))].id;
}

SymbolId Symbols::intern(std::string_view text) {
  if (count_ >= slots_.size() / 4 * 3) grow();
  const std::uint32_t hash = hash_text(text);
  Slot& slot = slots_[place(text, hash)];
  if (slot.id != kNoSymbol) return slot.id;
  if (count_ == kMostSymbols) throw std::length_error("too many symbols");
  char* copy = text_.array<char>(text.size());
  if (!text.empty()) std::memcpy(copy, text.data(), text.size());
  Symbol& symbol = *new (&symbols_.reach(count_)) Symbol;
  symbol.text = copy;
  symbol.size = static_cast<std::uint32_t>(text.size());
  slot = {hash, count_};
  return count_++;
}

void Symbols::grow() {
  std::vector<Slot> old(slots_.empty() ? 8 : slots_.size() * 2);
  old.swap(slots_);
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.id == kNoSymbol) continue;
    std::size_t at = slot.hash & mask;
    while (slots_[at].id != kNoSymbol) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

std::size_t Symbols::bytes() const {
  return symbols_.bytes() + slots_.capacity() * sizeof(Slot) + text_.bytes();
}

}  // namespace kato
