// References: CPython's pickletools.py (opcodes); torch/_weights_only_unpickler.py (what
// torch.load(weights_only=True) allows); torch/serialization.py (persistent ids);
// torch/csrc/jit/serialization/pickler.cpp (TorchScript).
#include "pickle.hpp"

#include "byte_source.hpp"

#include <algorithm>
#include <bit>
#include <iterator>
#include <string_view>
#include <unordered_map>

namespace ocellus::convert {

enum class pickle_role : std::uint8_t {
  ordered_dict,
  size,  // torch.Size(tuple)
  storage_type,
  element_type,
  rebuild_tensor,        // storage, offset, shape, strides, ...
  rebuild_tensor_typed,  // the same with an untyped storage and the type at the end
  rebuild_parameter,     // tensor, ...
  rebuild_from_type,     // function, type, arguments, state
  script_value,          // (value) or (value, type name): the value
  script_class,
  inert,  // calls and instances of it are opaque
};

namespace {

using kind = pickle_kind;
using role = pickle_role;
using value = pickle_value;

struct element_name {
  std::string_view name;
  pickle_element element;
};

constexpr element_name storage_types[] = {
    {"DoubleStorage", {source_dtype::f64, 8}},
    {"FloatStorage", {source_dtype::f32, 4}},
    {"HalfStorage", {source_dtype::f16, 2}},
    {"BFloat16Storage", {source_dtype::bf16, 2}},
    {"LongStorage", {source_dtype::i64, 8}},
    {"IntStorage", {source_dtype::i32, 4}},
    {"ShortStorage", {source_dtype::i16, 2}},
    {"CharStorage", {source_dtype::i8, 1}},
    {"ByteStorage", {source_dtype::u8, 1}},
    {"BoolStorage", {source_dtype::boolean, 1}},
    {"ComplexFloatStorage", {source_dtype::other, 8}},
    {"ComplexDoubleStorage", {source_dtype::other, 16}},
};

constexpr element_name element_types[] = {
    {"float64", {source_dtype::f64, 8}},
    {"double", {source_dtype::f64, 8}},
    {"float32", {source_dtype::f32, 4}},
    {"float", {source_dtype::f32, 4}},
    {"float16", {source_dtype::f16, 2}},
    {"half", {source_dtype::f16, 2}},
    {"bfloat16", {source_dtype::bf16, 2}},
    {"int64", {source_dtype::i64, 8}},
    {"long", {source_dtype::i64, 8}},
    {"int32", {source_dtype::i32, 4}},
    {"int", {source_dtype::i32, 4}},
    {"int16", {source_dtype::i16, 2}},
    {"short", {source_dtype::i16, 2}},
    {"int8", {source_dtype::i8, 1}},
    {"uint8", {source_dtype::u8, 1}},
    {"bool", {source_dtype::boolean, 1}},
    {"uint16", {source_dtype::other, 2}},
    {"uint32", {source_dtype::other, 4}},
    {"uint64", {source_dtype::other, 8}},
    {"complex64", {source_dtype::other, 8}},
    {"complex128", {source_dtype::other, 16}},
    {"float8_e4m3fn", {}},
    {"float8_e5m2", {}},
    {"float8_e4m3fnuz", {}},
    {"float8_e5m2fnuz", {}},
    {"float8_e8m0fnu", {}},
};

struct known_name {
  std::string_view name;
  role what;
};

constexpr known_name known_names[] = {
    {"collections.OrderedDict", role::ordered_dict},
    {"torch.Size", role::size},
    {"torch._utils._rebuild_tensor", role::rebuild_tensor},
    {"torch._utils._rebuild_tensor_v2", role::rebuild_tensor},
    {"torch._utils._rebuild_tensor_v3", role::rebuild_tensor_typed},
    {"torch._utils._rebuild_parameter", role::rebuild_parameter},
    {"torch._utils._rebuild_parameter_with_state", role::rebuild_parameter},
    {"torch._tensor._rebuild_from_type_v2", role::rebuild_from_type},
    // Beside the weights in training checkpoints.
    {"torch.Tensor", role::inert},
    {"torch.nn.parameter.Parameter", role::inert},
    {"torch.device", role::inert},
    {"torch.torch_version.TorchVersion", role::inert},
    {"argparse.Namespace", role::inert},
    {"collections.Counter", role::inert},
    {"collections.defaultdict", role::inert},
    {"pathlib.Path", role::inert},
    {"pathlib.PosixPath", role::inert},
    {"_codecs.encode", role::inert},
    {"numpy.dtype", role::inert},
    {"numpy.ndarray", role::inert},
    {"numpy.core.multiarray.scalar", role::inert},
    {"numpy.core.multiarray._reconstruct", role::inert},
    {"numpy._core.multiarray.scalar", role::inert},
    {"numpy._core.multiarray._reconstruct", role::inert},
};

// Python's own types, which a pickle names to make their empty or converted values.
constexpr std::string_view plain_types[] = {"bool", "bytearray", "complex", "dict", "float", "frozenset",
                                            "int",  "list",      "long",    "set",  "slice", "tuple"};

constexpr known_name script_names[] = {
    {"torch.jit._pickle.build_intlist", role::script_value},
    {"torch.jit._pickle.build_tensorlist", role::script_value},
    {"torch.jit._pickle.build_doublelist", role::script_value},
    {"torch.jit._pickle.build_boollist", role::script_value},
    {"torch.jit._pickle.restore_type_tag", role::script_value},
};

const pickle_element* find_element(std::span<const element_name> names, std::string_view name) {
  for (const element_name& known : names) {
    if (known.name == name) return &known.element;
  }
  return nullptr;
}

constexpr std::size_t max_objects = 2'000'000;   // tuples, lists, dicts, tensors, ...
constexpr std::size_t max_elements = 8'000'000;  // values in all of them
constexpr std::size_t max_stack = 1'000'000;     // Python's SETITEMS moves at most 1000 pairs
constexpr std::size_t max_name = 1000;           // of a global

class reader {
 public:
  reader(std::span<const std::byte> bytes, bool script_classes)
      : bytes_(bytes), script_classes_(script_classes) {}

  outcome<pickle_data> run() {
    while (!stopped_) {
      const std::byte* op = take(1);
      if (op == nullptr || !step(std::to_integer<unsigned>(*op))) {
        return error{"pickle at byte " + std::to_string(at_) + ": " +
                     (problem_.empty() ? "it is cut off" : problem_)};
      }
    }
    data_.root = stack_.back();
    data_.consumed = at_;
    return std::move(data_);
  }

 private:
  // Every helper below gives false (or null) after noting the problem; the machine then stops.
  bool fail(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
    return false;
  }

  const std::byte* take(std::uint64_t count) {
    if (count > bytes_.size() - at_) {
      fail("it is cut off");
      return nullptr;
    }
    const std::byte* const p = bytes_.data() + at_;
    at_ += static_cast<std::size_t>(count);
    return p;
  }

  /// The next `size` bytes, at most 8, as an integer: little-endian, without a sign.
  bool take_number(std::size_t size, std::uint64_t& n) {
    const std::byte* const p = take(size);
    if (p == nullptr) return false;
    n = 0;
    for (std::size_t i = size; i-- > 0;) n = n << 8 | std::to_integer<std::uint64_t>(p[i]);
    return true;
  }

  bool push(value v) {
    if (stack_.size() >= max_stack) return fail("its stack grows beyond any checkpoint's");
    stack_.push_back(v);
    return true;
  }
  bool push(kind k, std::size_t number) {
    value v;
    v.kind = k;
    v.number = number;
    return push(v);
  }
  bool push_integer(std::int64_t integer, kind k = kind::integer) {
    value v;
    v.kind = k;
    v.integer = integer;
    return push(v);
  }
  bool push_real(double real) {
    value v;
    v.kind = kind::real;
    v.real = real;
    return push(v);
  }

  // Values above the last mark; operators take none from below it.
  std::size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  bool need(std::size_t count) { return available() >= count || fail("an operator lacks its operands"); }
  value pop() {
    const value v = stack_.back();
    stack_.pop_back();
    return v;
  }

  // Moves what is above the last mark into `out` and takes the mark away.
  bool pop_mark(std::vector<value>& out) {
    if (marks_.empty()) return fail("an operator lacks its mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    out.assign(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return true;
  }

  bool charge(std::size_t objects, std::size_t elements) {
    objects_ += objects;
    elements_ += elements;
    return (objects_ <= max_objects && elements_ <= max_elements) ||
           fail("it holds more values than any checkpoint");
  }

  bool push_sequence(kind k, std::vector<value> items) {
    if (!charge(1, items.size())) return false;
    data_.sequences.push_back(std::move(items));
    return push(k, data_.sequences.size() - 1);
  }

  bool push_dict() {
    if (!charge(1, 0)) return false;
    data_.dicts.emplace_back();
    return push(kind::dict, data_.dicts.size() - 1);
  }

  bool push_top_as_tuple(std::size_t count) {
    if (!need(count)) return false;
    std::vector<value> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return push_sequence(kind::tuple, std::move(items));
  }

  bool push_text(kind k, std::uint64_t length) {
    const std::byte* const p = take(length);
    if (p == nullptr || !charge(1, 0)) return false;
    std::string text(reinterpret_cast<const char*>(p), static_cast<std::size_t>(length));
    if (k == kind::text && !is_utf8(text)) return fail("a text is not UTF-8");
    data_.texts.push_back(std::move(text));
    return push(k, data_.texts.size() - 1);
  }

  // Python 2's str: text when it can be.
  bool push_string(std::uint64_t length) {
    if (!push_text(kind::bytes, length)) return false;
    if (is_utf8(data_.texts[stack_.back().number])) stack_.back().kind = kind::text;
    return true;
  }

  /// A signed integer of `length` bytes.
  bool push_long(std::uint64_t length) {
    if (length > 8) return push_text(kind::big, length);
    std::uint64_t bits = 0;
    if (!take_number(static_cast<std::size_t>(length), bits)) return false;
    if (length == 0) return push_integer(0);
    const int unused = 64 - 8 * static_cast<int>(length);  // bits that take the sign
    return push_integer(static_cast<std::int64_t>(bits << unused) >> unused);
  }

  bool put(std::uint64_t index) {
    if (!need(1)) return false;
    if (memo_.size() >= max_objects) return fail("its memo grows beyond any checkpoint's");
    memo_[index] = stack_.back();
    return true;
  }
  bool get(std::uint64_t index) {
    const auto found = memo_.find(index);
    return found == memo_.end() ? fail("it uses a memo entry that it never stored") : push(found->second);
  }

  bool append(const value& target, std::span<const value> items) {
    if (target.kind == kind::opaque) return true;
    if (target.kind != kind::list) return fail("it appends to something that is no list");
    std::vector<value>& list = data_.sequences[target.number];
    if (!charge(0, items.size())) return false;
    list.insert(list.end(), items.begin(), items.end());
    return true;
  }

  bool set_items(const value& target, std::span<const value> items) {
    if (items.size() % 2 != 0) return fail("a key without a value");
    if (target.kind != kind::dict && target.kind != kind::opaque)
      return fail("it sets items of something that is no dict");
    if (!charge(0, items.size())) return false;
    for (std::size_t i = 0; i < items.size(); i += 2) {
      if (items[i].kind == kind::list || items[i].kind == kind::dict)
        return fail("a key that Python cannot hash");
      if (target.kind == kind::dict) data_.dicts[target.number].emplace_back(items[i], items[i + 1]);
    }
    return true;
  }

  // A line of text that ends in a newline, as GLOBAL's operands are.
  bool take_line(std::string_view& line) {
    const auto* const begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const std::string_view rest(begin, std::min(bytes_.size() - at_, max_name));
    const std::size_t end = rest.find('\n');
    if (end == rest.npos) return fail("a name without its end");
    line = rest.substr(0, end);
    at_ += end + 1;
    return true;
  }

  bool push_global(std::string_view module, std::string_view name) {
    if (module.size() + name.size() > max_name) return fail("a name that is too long");
    const std::string full = std::string(module) + '.' + std::string(name);
    const auto seen = global_numbers_.find(full);
    if (seen != global_numbers_.end()) return push(kind::global, seen->second);
    pickle_global global{full, role::inert, {}, false};
    if (!resolve(global, module, name)) {
      return fail("it asks for " + printable(full) +
                  ", which is not on the list of names that checkpoints of tensors need");
    }
    if (!charge(1, 0)) return false;
    global_numbers_.emplace(full, data_.globals.size());
    data_.globals.push_back(std::move(global));
    return push(kind::global, data_.globals.size() - 1);
  }

  bool resolve(pickle_global& global, std::string_view module, std::string_view name) const {
    const auto set = [&](role what, pickle_element element) {
      global.role = what;
      global.element = element;
      return true;
    };
    const auto among = [&](std::span<const known_name> names) {
      for (const known_name& known : names) {
        if (known.name == global.name) return set(known.what, {});
      }
      return false;
    };
    if (module == "torch" || module == "torch.cuda") {
      if (const pickle_element* found = find_element(storage_types, name)) {
        return set(role::storage_type, *found);
      }
    }
    if (module == "torch") {
      if (const pickle_element* found = find_element(element_types, name)) {
        return set(role::element_type, *found);
      }
    }
    if (global.name == "torch.storage.UntypedStorage" || global.name == "torch.UntypedStorage") {
      global.untyped = true;
      return set(role::storage_type, {source_dtype::u8, 1});
    }
    if (script_classes_ && (module == "__torch__" || module.starts_with("__torch__."))) {
      return set(role::script_class, {});
    }
    if (module == "builtins" || module == "__builtin__") {  // Python 3, Python 2
      return std::find(std::begin(plain_types), std::end(plain_types), name) != std::end(plain_types) &&
             set(role::inert, {});
    }
    return among(known_names) || (script_classes_ && among(script_names));
  }

  bool push_persistent() {
    const value id = pop();
    if (id.kind != kind::tuple) return fail("a persistent id that is no tuple");
    const std::vector<value>& part = data_.sequences[id.number];
    if (part.size() < 5 || part.size() > 6 || !data_.is_text(part[0], "storage") ||
        part[1].kind != kind::global || data_.globals[part[1].number].role != role::storage_type ||
        part[2].kind != kind::text || part[4].kind != kind::integer || part[4].integer < 0) {
      return fail("a persistent id that is no storage");
    }
    if (part.size() == 6 && part[5].kind != kind::none)
      return fail("views of storages (torch before 0.4) are not supported");
    const pickle_global& type = data_.globals[part[1].number];
    if (!charge(1, 0)) return false;
    data_.storages.push_back(
        {type.element, type.untyped, part[2].number, static_cast<std::uint64_t>(part[4].integer)});
    return push(kind::storage, data_.storages.size() - 1);
  }

  bool sizes(const value& v, std::vector<std::int64_t>& out) {
    if (v.kind != kind::tuple && v.kind != kind::list) return false;
    const std::vector<value>& items = data_.sequences[v.number];
    if (items.size() > 64) return false;
    for (const value& item : items) {
      if (item.kind != kind::integer || item.integer < 0) return false;
      out.push_back(item.integer);
    }
    return true;
  }

  bool push_tensor(std::span<const value> args, bool typed) {
    const std::size_t least = typed ? 7 : 4;
    if (args.size() < least || args[0].kind != kind::storage || args[1].kind != kind::integer ||
        args[1].integer < 0) {
      return fail("a tensor is built from the wrong arguments");
    }
    pickle_tensor tensor;
    tensor.storage = args[0].number;
    tensor.offset = args[1].integer;
    const pickle_storage& storage = data_.storages[tensor.storage];
    tensor.element = storage.element;
    if (typed) {
      if (args[6].kind != kind::global || data_.globals[args[6].number].role != role::element_type) {
        return fail("a tensor is built with a type that is none");
      }
      tensor.element = data_.globals[args[6].number].element;
    }
    if (!sizes(args[2], tensor.shape) || !sizes(args[3], tensor.strides) ||
        tensor.shape.size() != tensor.strides.size()) {
      return fail("a tensor's shape or strides make no sense");
    }
    // Behind the backward hooks PyTorch lists what a view does to its data: {"neg": True}, {"conj": True}.
    const std::size_t views = typed ? 7 : 6;
    if (args.size() > views && args[views].kind == kind::dict && !data_.dicts[args[views].number].empty())
      return fail("a tensor is a negated or conjugated view of its data, which is not supported");
    if (!charge(1, tensor.shape.size())) return false;
    data_.tensors.push_back(std::move(tensor));
    return push(kind::tensor, data_.tensors.size() - 1);
  }

  // What calling `callee` with the arguments would give. The arguments lie in data_.sequences, to which
  // nothing here adds.
  bool push_call(const value& callee, std::span<const value> args, bool within_type = false) {
    if (callee.kind != kind::global) return fail("it calls something that is no name");
    const role what = data_.globals[callee.number].role;
    switch (what) {
      case role::ordered_dict: return push_ordered_dict(args);
      case role::rebuild_tensor: return push_tensor(args, false);
      case role::rebuild_tensor_typed: return push_tensor(args, true);
      case role::rebuild_parameter:
        return !args.empty() && args[0].kind == kind::tensor ? push(args[0])
                                                             : fail("a parameter without its tensor");
      case role::rebuild_from_type:
        if (within_type || args.size() != 4 || args[2].kind != kind::tuple) {
          return fail("a tensor of a type of its own is built from the wrong arguments");
        }
        return push_call(args[0], data_.sequences[args[2].number], true);
      case role::size:
        return args.size() == 1 && (args[0].kind == kind::tuple || args[0].kind == kind::list)
                   ? push(kind::tuple, args[0].number)
                   : fail("a torch.Size of something that is no tuple");
      case role::script_value: return !args.empty() ? push(args[0]) : fail("a value without its value");
      case role::inert: return push(kind::opaque, 0);
      case role::script_class:
        if (!charge(1, 0)) return false;
        data_.objects.push_back({callee.number, {}});
        return push(kind::object, data_.objects.size() - 1);
      default:
        return fail("it calls " + printable(data_.globals[callee.number].name) + ", which is no function");
    }
  }

  bool push_ordered_dict(std::span<const value> args) {
    if (!push_dict()) return false;
    if (args.empty()) return true;
    const value target = stack_.back();
    if (args.size() != 1 || args[0].kind != kind::list)
      return fail("an OrderedDict of something that is no list");
    for (const value& pair : data_.sequences[args[0].number]) {
      if ((pair.kind != kind::tuple && pair.kind != kind::list) || data_.sequences[pair.number].size() != 2) {
        return fail("an OrderedDict of something that is no pair");
      }
      if (!set_items(target, data_.sequences[pair.number])) return false;
    }
    return true;
  }

  bool call() {
    if (!need(2)) return false;
    const value args = pop(), callee = pop();
    if (args.kind != kind::tuple) return fail("the arguments of a call are no tuple");
    return push_call(callee, data_.sequences[args.number]);
  }

  bool build() {
    if (!need(2)) return false;
    const value state = pop(), target = stack_.back();
    switch (target.kind) {
      case kind::object:
        if (state.kind == kind::dict) data_.objects[target.number].state = state;
        return true;
      case kind::dict:  // OrderedDict's attributes: a module's _metadata
      case kind::tensor:
      case kind::opaque: return true;
      default: return fail("it sets attributes of something that has none");
    }
  }

  bool step(unsigned opcode);

  std::span<const std::byte> bytes_;
  bool script_classes_;
  std::size_t at_ = 0;
  bool stopped_ = false;
  std::string problem_;
  std::vector<value> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::unordered_map<std::uint64_t, value> memo_;
  std::unordered_map<std::string, std::size_t> global_numbers_;
  std::size_t objects_ = 0;
  std::size_t elements_ = 0;
  pickle_data data_;
};

/// Opcodes by pickletools' names: those that checkpoints of tensors need.
namespace op {
enum : unsigned {
  proto = 0x80, frame = 0x95, stop = '.', mark = '(', pop = '0', pop_mark = '1',
  none = 'N', new_true = 0x88, new_false = 0x89, bin_int = 'J', bin_int1 = 'K', bin_int2 = 'M', long1 = 0x8a,
  bin_float = 'G', bin_unicode = 'X', bin_unicode8 = 0x8d, short_bin_unicode = 0x8c, bin_bytes = 'B',
  bin_bytes8 = 0x8e, short_bin_bytes = 'C', bin_string = 'T', short_bin_string = 'U',
  empty_tuple = ')', tuple1 = 0x85, tuple2 = 0x86, tuple3 = 0x87, tuple = 't', empty_list = ']', append = 'a',
  appends = 'e', empty_dict = '}', set_item = 's', set_items = 'u', empty_set = 0x8f, add_items = 0x90,
  frozen_set = 0x91,
  bin_put = 'q', long_bin_put = 'r', memoize = 0x94, bin_get = 'h', long_bin_get = 'j',
  global = 'c', stack_global = 0x93, bin_pers_id = 'Q', reduce = 'R', new_obj = 0x81, build = 'b',
};
}  // namespace op

bool reader::step(unsigned opcode) {
  std::uint64_t n = 0;
  std::vector<value> items;
  switch (opcode) {
    case op::proto: return take_number(1, n) && (n <= 5 || fail("its protocol is not known"));
    case op::frame: return take_number(8, n) && (n <= bytes_.size() - at_ || fail("it is cut off"));
    case op::stop: stopped_ = true; return need(1) && (marks_.empty() || fail("a mark is left at its end"));

    case op::mark:
      if (marks_.size() >= max_stack) return fail("its stack grows beyond any checkpoint's");
      marks_.push_back(stack_.size());
      return true;
    case op::pop:
      if (!need(1)) return false;
      pop();
      return true;
    case op::pop_mark: return pop_mark(items);

    case op::none: return push(value{});
    case op::new_true: return push_integer(1, kind::boolean);
    case op::new_false: return push_integer(0, kind::boolean);
    case op::bin_int: return take_number(4, n) && push_integer(static_cast<std::int32_t>(n));
    case op::bin_int1: return take_number(1, n) && push_integer(static_cast<std::int64_t>(n));
    case op::bin_int2: return take_number(2, n) && push_integer(static_cast<std::int64_t>(n));
    case op::long1: return take_number(1, n) && push_long(n);
    case op::bin_float: return take_number(8, n) && push_real(std::bit_cast<double>(__builtin_bswap64(n)));
    case op::bin_unicode: return take_number(4, n) && push_text(kind::text, n);
    case op::bin_unicode8: return take_number(8, n) && push_text(kind::text, n);
    case op::short_bin_unicode: return take_number(1, n) && push_text(kind::text, n);
    case op::bin_bytes: return take_number(4, n) && push_text(kind::bytes, n);
    case op::bin_bytes8: return take_number(8, n) && push_text(kind::bytes, n);
    case op::short_bin_bytes: return take_number(1, n) && push_text(kind::bytes, n);
    case op::bin_string: return take_number(4, n) && push_string(n);
    case op::short_bin_string: return take_number(1, n) && push_string(n);

    case op::empty_tuple: return push_sequence(kind::tuple, {});
    case op::tuple1: return push_top_as_tuple(1);
    case op::tuple2: return push_top_as_tuple(2);
    case op::tuple3: return push_top_as_tuple(3);
    case op::tuple: return pop_mark(items) && push_sequence(kind::tuple, std::move(items));
    case op::empty_list: return push_sequence(kind::list, {});
    case op::append: {
      if (!need(2)) return false;
      const value item = pop();
      return append(stack_.back(), {&item, 1});
    }
    case op::appends: return pop_mark(items) && need(1) && append(stack_.back(), items);
    case op::empty_dict: return push_dict();
    case op::set_item: {
      if (!need(3)) return false;
      const value item = pop(), key = pop();
      const value pair[] = {key, item};
      return set_items(stack_.back(), pair);
    }
    case op::set_items: return pop_mark(items) && need(1) && set_items(stack_.back(), items);
    case op::empty_set: return push(kind::opaque, 0);
    case op::add_items: return pop_mark(items) && need(1) && append(stack_.back(), items);
    case op::frozen_set: return pop_mark(items) && push(kind::opaque, 0);

    case op::bin_put: return take_number(1, n) && put(n);
    case op::long_bin_put: return take_number(4, n) && put(n);
    case op::memoize: return put(memo_.size());
    case op::bin_get: return take_number(1, n) && get(n);
    case op::long_bin_get: return take_number(4, n) && get(n);

    case op::global: {
      std::string_view module, name;
      return take_line(module) && take_line(name) && push_global(module, name);
    }
    case op::stack_global: {
      if (!need(2)) return false;
      const value name = pop(), module = pop();
      if (name.kind != kind::text || module.kind != kind::text) return fail("a name that is no text");
      return push_global(data_.texts[module.number], data_.texts[name.number]);
    }
    case op::bin_pers_id: return need(1) && push_persistent();
    case op::reduce:
    case op::new_obj: return call();
    case op::build: return build();
    default: break;
  }
  constexpr char hex[] = "0123456789abcdef";
  return fail(std::string("its opcode 0x") + hex[opcode >> 4] + hex[opcode & 15] +
              " is not one that checkpoints of tensors need");
}

}  // namespace

outcome<pickle_data> read_pickle(std::span<const std::byte> bytes, bool script_classes) {
  return reader(bytes.first(std::min(bytes.size(), max_pickle_bytes)), script_classes).run();
}

}  // namespace ocellus::convert
