// Pattern names (20 bytes, shown as 40 hexadecimal digits) and the table that finds a pattern by its name.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kato {

using Name = std::array<std::uint8_t, 20>;
constexpr std::size_t kNameDigits = 40;

// Nothing when the text is not 40 lowercase hexadecimal digits.
std::optional<Name> parse_name(std::string_view text);
std::string format_name(const Name& name);

// Maps names to pattern ids. It keeps the ids only; `name_of(id)` must give the name back.
class NameTable {
 public:
  template <class NameOf>
  std::optional<std::uint32_t> find(const Name& name, NameOf&& name_of) const {
    if (slots_.empty()) return std::nullopt;
    for (std::size_t at = home(name); slots_[at]; at = next(at)) {
      if (name_of(slots_[at] - 1) == name) return slots_[at] - 1;
    }
    return std::nullopt;
  }

  // Whether it must be enlarged before the next insertion. Enlarging empties it: all names must be inserted again,
  // best in the order in which they lie in memory.
  bool is_full() const { return count_ >= slots_.size() / 8 * 5; }
  void enlarge();

  // The name must not be there.
  void insert(const Name& name, std::uint32_t id);

  // The name must be there.
  template <class NameOf>
  void erase(const Name& name, NameOf&& name_of) {
    std::size_t hole = home(name);
    while (name_of(slots_[hole] - 1) != name) hole = next(hole);
    // Close the hole with later entries that would otherwise no longer be reached from their home.
    for (std::size_t at = next(hole); slots_[at]; at = next(at)) {
      const std::size_t wanted = home(name_of(slots_[at] - 1));
      if (((at - wanted) & mask()) < ((at - hole) & mask())) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole] = 0;
    --count_;
  }

  std::uint32_t size() const { return count_; }
  std::size_t bytes() const { return slots_.capacity() * sizeof(std::uint32_t); }

 private:
  static std::size_t hash(const Name& name);
  std::size_t mask() const { return slots_.size() - 1; }
  std::size_t home(const Name& name) const { return hash(name) & mask(); }
  std::size_t next(std::size_t at) const { return (at + 1) & mask(); }

  std::vector<std::uint32_t> slots_;  // id + 1, 0 = free; linear probing, a power of two
  std::uint32_t count_ = 0;
};

}  // namespace kato
