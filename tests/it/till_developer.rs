//! The first ten minutes of somebody who builds a till: `./dev till`, then the script of the docs verbatim.

use std::process::{Command, Output};

use e2e::till;

use crate::world::{World, root, run, said, world};

async fn first_sale(world: &World, changed: Option<(&str, &str)>) -> Output {
    let till = till::make(&world.endpoints, None).await.expect("a till");
    let mut command = Command::new("sh");
    command.arg("docs/first-sale.sh").current_dir(root()).envs(till.exports(&world.endpoints));
    if let Some((name, value)) = changed {
        command.env(name, value);
    }
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_sale_of_the_docs_works_as_written() {
    let world = world().await;
    let done = first_sale(&world, None).await;
    assert!(done.status.success(), "{}", said(&done));
    let text = String::from_utf8_lossy(&done.stdout);
    for expected in ["201  committed", "200  replayed", "idempotency_key_reuse", "total_mismatch", "Done:"] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_works_as_the_docs_say() {
    let world = world().await;
    let owner = e2e::demo::owner(&world.endpoints).unwrap();
    let login = format!("m-{}", &uuid::Uuid::now_v7().simple().to_string()[22..]);
    let password = "a long enough password";
    let grants = [serde_json::json!({"role": "manager"})];
    let user = serde_json::json!({"login": login, "code": login, "password": password, "grants": grants});
    owner.post::<serde_json::Value>("/users", &user).await.unwrap();
    let sign_in = async |password: &str| {
        let mut command = Command::new("sh");
        command.arg("docs/sign-in.sh").current_dir(root()).env("VORCA_URL", &world.endpoints.api);
        command.env("VORCA_LOGIN", &login).env("VORCA_PASSWORD", password);
        run(command).await
    };
    let done = sign_in(password).await;
    assert!(done.status.success(), "{}", said(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("Done."), "{}", said(&done));
    assert!(!sign_in("wrong").await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_fails_when_a_step_is_not_answered_as_it_says() {
    let world = world().await;
    let stranger = uuid::Uuid::now_v7().to_string();
    let done = first_sale(&world, Some(("VORCA_CASHIER_ID", stranger.as_str()))).await;
    assert!(!done.status.success(), "{}", said(&done));
    let done = first_sale(&world, Some(("VORCA_TERMINAL_ID", stranger.as_str()))).await;
    assert!(!done.status.success(), "{}", said(&done));
}
