// The smallest user of ocellus: opens a model that is not there and is told so.
#include <ocellus/models/model.hpp>

int main() {
  const auto model = ocellus::model::open("there is no such file.oc");
  return !model && model.error() == ocellus::status::file_not_found ? 0 : 1;
}
