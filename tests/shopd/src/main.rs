//! The application under test, in one static program: `shopd` serves, `shopd pause` holds a pod's namespaces.

mod pause;

fn main() {
    pause::run();
}
