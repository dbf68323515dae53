#include "layouts.hpp"
namespace ocellus::convert {
outcome<model_source> read_open_clip(const checkpoint&, const nlohmann::json&, const std::string&){return error{"open_clip's layout is not read yet"};}
outcome<model_source> read_timm(const checkpoint&, const nlohmann::json&, const std::string&){return error{"timm's layout is not read yet"};}
outcome<model_source> read_dinov2(const checkpoint&){return error{"Meta's layout is not read yet"};}
outcome<model_source> read_big_vision(const checkpoint&){return error{"big_vision's layout is not read yet"};}
}
