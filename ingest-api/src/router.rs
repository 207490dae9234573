//! Every route in one table: method, path, permission, handler, and what it takes and gives. The router
//! and the OpenAPI document are both made from it, so neither can know a route the other does not.

mod route;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;

pub use self::route::Route;
use self::route::{get, patch, post, put};
use crate::access::Permission::*;
use crate::access_matrix::Reach::*;
use crate::app::AppState;
use crate::approvals::routes as approvals;
use crate::audit::proof::ReceiptProof;
use crate::audit::routes::{self as audit, AuditItem, AuditParams};
use crate::auth::{
    account, clients, enrolment, keys, leases, login, pin, policy, refresh, second_factor, sessions, step_up,
    terminal_token, tokens,
};
use crate::catalog::{feed, prices, products, promotions, upsert, variants};
use crate::customers::{erasure, export, lookup, merge, profile};
use crate::inventory::{acts, disposition, levels};
use crate::loyalty::programs;
use crate::page::PageParams;
use crate::returns::body::{AnyDocument, DocumentBody, PreviewBody};
use crate::returns::returnable::Returnable;
use crate::returns::routes::{self as returns, DocumentParams};
use crate::returns::types::{NewExchange, NewExchangePreview, NewRefund, NewRefundPreview, NewVoid};
use crate::sales::explain::Explanation;
use crate::sales::response::{QuoteBody, SaleBody};
use crate::sales::routes::SaleParams;
use crate::sales::types::{NewQuote, NewSale};
use crate::{
    browsers, budgets, changes, context, customers, guard, locations, openapi, reporting, roles, sales, taxes,
    terminals, users,
};

/// Where the API lives.
pub const BASE: &str = "/api/v1";

/// The table.
pub fn routes() -> Vec<Route> {
    [
        sign_in_routes(),
        account_routes(),
        client_routes(),
        access_routes(),
        place_routes(),
        catalog_routes(),
        member_routes(),
        stock_routes(),
        sale_routes(),
        return_routes(),
        feed_routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn sign_in_routes() -> Vec<Route> {
    vec![
        post("/auth/login", Public, login::log_in, "Log in with a password and, where there is one, a second factor")
            .tries_password()
            .takes::<login::Login>()
            .gives::<sessions::SignedIn>(200)
            .gives::<login::EnrolmentToken>(202),
        post("/auth/refresh", Public, refresh::refresh, "Spend a refresh token for the next one")
            .takes::<refresh::Refresh>()
            .gives::<sessions::SignedIn>(200),
        post("/auth/password-reset", Public, account::reset_password, "Set a password with a one-time code")
            .tries_password()
            .takes::<account::ResetPassword>()
            .gives::<sessions::SessionsEnded>(200),
        post("/auth/terminal-token", Public, terminal_token::issue_terminal_token, "Exchange a signature for a token")
            .takes::<terminal_token::TerminalTokenRequest>()
            .gives::<tokens::IssuedToken>(200),
        post("/auth/client-token", Public, clients::issue_token, "Exchange client credentials for a token")
            .takes::<clients::ClientTokenRequest>()
            .gives::<tokens::IssuedToken>(200),
        get("/auth/jwks", Public, keys::list_keys, "List the public keys of access tokens")
            .gives::<keys::PublicKeys>(200),
        post("/auth/pin", SignInCashiers, pin::sign_in, "Sign a cashier in at a till and issue a lease")
            .takes::<pin::PinSignIn>()
            .gives::<pin::IssuedLease>(201),
        get("/leases", ManageLeases, leases::list_leases, "List the leases of tills")
            .reaches(Listed)
            .asks::<leases::LeaseParams>()
            .lists::<leases::Lease>(),
        post("/leases/{lease_id}/revoke", ManageLeases, leases::revoke_lease, "Take a lease back")
            .reaches(Object)
            .gives::<leases::Lease>(200),
    ]
}

fn account_routes() -> Vec<Route> {
    vec![
        get("/auth/account", OwnAccount, second_factor::account, "Read what signing in takes for oneself")
            .gives::<second_factor::Account>(200),
        post("/auth/step-up", OwnAccount, step_up::step_up, "Prove once more who one is")
            .takes::<step_up::StepUp>()
            .gives::<step_up::SteppedUp>(200),
        post("/auth/logout", OwnAccount, sessions::log_out, "End this session").gives::<sessions::SessionsEnded>(200),
        post("/auth/logout-everywhere", OwnAccount, sessions::log_out_everywhere, "End all of one's sessions")
            .gives::<sessions::SessionsEnded>(200),
        get("/auth/sessions", OwnAccount, sessions::list_own, "List one's sessions").gives::<sessions::Sessions>(200),
        post("/auth/sessions/{session_id}/end", OwnAccount, sessions::end_own, "End one of one's sessions")
            .gives::<sessions::SessionsEnded>(200),
        post("/auth/password", OwnAccount, account::change_password, "Change one's password")
            .takes::<account::PasswordChange>()
            .gives::<sessions::SessionsEnded>(200),
        post("/auth/second-factor", EnrolSecondFactor, second_factor::offer, "Be offered a second factor")
            .may_take::<second_factor::FactorProof>()
            .gives::<second_factor::OfferedFactor>(200),
        post("/auth/second-factor/confirm", EnrolSecondFactor, second_factor::confirm, "Confirm the second factor")
            .takes::<second_factor::Confirm>()
            .gives::<second_factor::ConfirmedFactor>(200),
        post("/auth/second-factor/remove", OwnAccount, second_factor::remove, "Give one's second factor up")
            .gives::<sessions::SessionsEnded>(200),
        post("/auth/recovery-codes", OwnAccount, second_factor::recovery_codes, "Make ten new recovery codes")
            .gives::<second_factor::RecoveryCodes>(200),
        get("/sign-in-policy", ManageSignIn, policy::find_policy, "Read the sign-in policy")
            .reaches(Everywhere)
            .gives::<policy::SignInPolicy>(200),
        patch("/sign-in-policy", ManageSignIn, policy::edit_policy, "Edit the sign-in policy")
            .reaches(Everywhere)
            .takes::<policy::SignInPolicyEdit>()
            .gives::<policy::SignInPolicy>(200),
        post("/auth/unlock-address", ManageSignIn, account::unlock_address, "End the lock of an address")
            .reaches(Everywhere)
            .takes::<account::LockedAddress>()
            .gives::<account::Unlocked>(200),
        get("/users/{user_id}/sessions", ManageUsers, sessions::list_of_user, "List the sessions of a user")
            .reaches(Object)
            .gives::<sessions::Sessions>(200),
        post("/users/{user_id}/sessions/end", ManageUsers, sessions::end_of_user, "End the sessions of a user")
            .reaches(Object)
            .gives::<sessions::SessionsEnded>(200),
        post("/users/{user_id}/unlock", ManageUsers, account::unlock_user, "End the locks of a user")
            .reaches(Object)
            .gives::<account::Unlocked>(200),
        post(
            "/users/{user_id}/password-reset",
            ManageUsers,
            account::begin_reset,
            "Make a one-time code for a password",
        )
        .reaches(Object)
        .gives::<account::PasswordReset>(201),
        post(
            "/users/{user_id}/second-factor/reset",
            ManageUsers,
            second_factor::reset,
            "Take a lost second factor away from a user",
        )
        .reaches(Object)
        .gives::<sessions::SessionsEnded>(200),
        post("/users/{user_id}/pin", ManageUsers, pin::set_pin, "Set or take away the PIN of a user")
            .reaches(Object)
            .takes::<pin::NewPin>()
            .gives::<pin::PinSet>(200),
    ]
}

fn client_routes() -> Vec<Route> {
    vec![
        post("/api-clients", ManageClients, clients::create_client, "Make an API client and its first secret")
            .reaches(Everywhere)
            .takes::<clients::NewApiClient>()
            .gives::<clients::ClientSecret>(201),
        get("/api-clients", ManageClients, clients::list_clients, "List API clients")
            .reaches(Everywhere)
            .asks::<PageParams>()
            .lists::<clients::ApiClient>(),
        get("/api-clients/{client_id}", ManageClients, clients::find_client, "Read an API client")
            .reaches(Everywhere)
            .gives::<clients::ApiClient>(200),
        patch("/api-clients/{client_id}", ManageClients, clients::edit_client, "Edit an API client")
            .reaches(Everywhere)
            .takes::<clients::ApiClientEdit>()
            .gives::<clients::ApiClient>(200),
        post("/api-clients/{client_id}/secrets", ManageClients, clients::create_secret, "Make a further secret")
            .reaches(Everywhere)
            .takes::<clients::NewSecret>()
            .gives::<clients::ClientSecret>(201),
        post("/api-client-secrets/{secret_id}/end", ManageClients, clients::end_secret, "End a secret")
            .reaches(Everywhere)
            .gives::<clients::ApiClient>(200),
    ]
}

fn access_routes() -> Vec<Route> {
    vec![
        post("/enrolments", Public, enrolment::enrol, "Bind a device to a terminal with a one-time code")
            .takes::<enrolment::NewEnrolment>()
            .gives::<enrolment::Enrolled>(201),
        post("/users", ManageUsers, users::create_user, "Make a user")
            .reaches(Named)
            .takes::<users::NewUser>()
            .gives::<users::User>(201),
        get("/users", ReadUsers, users::list_users, "List users")
            .reaches(Listed)
            .asks::<PageParams>()
            .lists::<users::User>(),
        get("/users/{user_id}", ReadUsers, users::find_user, "Read a user").reaches(Object).gives::<users::User>(200),
        patch("/users/{user_id}", ManageUsers, users::edit_user, "Edit a user")
            .reaches(Object)
            .takes::<users::UserEdit>()
            .gives::<users::User>(200),
        get("/roles", ReadRoles, roles::list_roles, "List roles with their rules").gives::<roles::Roles>(200),
        post("/roles", ManageRoles, roles::create_role, "Make a role of the company's own")
            .reaches(Everywhere)
            .takes::<roles::NewRole>()
            .gives::<roles::RoleBody>(201),
        get("/roles/{role_id}", ReadRoles, roles::find_role, "Read a role of the company's own")
            .gives::<roles::RoleBody>(200),
        put("/roles/{role_id}", ManageRoles, roles::replace_role, "Replace a role of the company's own")
            .reaches(Everywhere)
            .takes::<roles::NewRole>()
            .gives::<roles::RoleBody>(200),
        post("/approvals", ApproveActs, approvals::create_approval, "Approve what goes beyond somebody's limits")
            .reaches(Named)
            .takes::<approvals::NewApproval>()
            .gives::<approvals::IssuedApproval>(201),
        post("/terminals", ManageTerminals, terminals::create_terminal, "Make a terminal")
            .reaches(Named)
            .takes::<terminals::NewTerminal>()
            .gives::<terminals::Terminal>(201),
        get("/terminals", ReadTerminals, terminals::list_terminals, "List terminals")
            .reaches(Listed)
            .asks::<terminals::TerminalParams>()
            .lists::<terminals::Terminal>(),
        get(
            "/terminals/{terminal_id}",
            ReadTerminals,
            terminals::find_terminal,
            "Read a terminal and its next numbers",
        )
        .reaches(Object)
        .gives::<terminals::TerminalWithNumbers>(200),
        post(
            "/terminals/{terminal_id}/enrolment-codes",
            ManageTerminals,
            enrolment::create_code,
            "Make a one-time code that binds a device",
        )
        .reaches(Object)
        .gives::<enrolment::EnrolmentCode>(201),
        post("/terminals/{terminal_id}/retire", ManageTerminals, enrolment::retire, "Make the bound device worthless")
            .reaches(Object)
            .gives::<terminals::Terminal>(200),
    ]
}

fn place_routes() -> Vec<Route> {
    vec![
        post("/locations", ManageLocations, locations::create_location, "Make a location")
            .reaches(Everywhere)
            .takes::<locations::NewLocation>()
            .gives::<locations::Location>(201),
        get("/locations", ReadLocations, locations::list_locations, "List locations")
            .reaches(Listed)
            .asks::<PageParams>()
            .lists::<locations::Location>(),
        get("/locations/{location_id}", ReadLocations, locations::find_location, "Read a location")
            .reaches(Object)
            .gives::<locations::Location>(200),
        patch("/locations/{location_id}", ManageLocations, locations::edit_location, "Edit a location")
            .reaches(Object)
            .takes::<locations::LocationEdit>()
            .gives::<locations::Location>(200),
        post("/tax-profiles", ManageCatalog, taxes::create_tax_profile, "Make a tax profile")
            .reaches(Everywhere)
            .takes::<taxes::NewTaxProfile>()
            .gives::<taxes::TaxProfile>(201),
        get("/tax-profiles", ReadCatalog, taxes::list_tax_profiles, "List tax profiles")
            .asks::<PageParams>()
            .lists::<taxes::TaxProfile>(),
        get("/tax-profiles/{tax_profile_id}", ReadCatalog, taxes::find_tax_profile, "Read a tax profile")
            .gives::<taxes::TaxProfile>(200),
        post(
            "/tax-profiles/{tax_profile_id}/rates",
            ManageCatalog,
            taxes::add_rates,
            "Set the rates from an instant on",
        )
        .reaches(Everywhere)
        .if_match()
        .takes::<taxes::NewRates>()
        .gives::<taxes::TaxProfile>(201),
    ]
}

fn catalog_routes() -> Vec<Route> {
    vec![
        post(
            "/catalog/upsert",
            ManageCatalog,
            upsert::upsert_catalog,
            "Bring products, variants and prices up to date",
        )
        .in_bulk()
        .reaches(Everywhere)
        .takes::<upsert::CatalogUpsert>()
        .gives::<upsert::CatalogStored>(200),
        get("/catalog/changes", ReadCatalog, feed::list_changes, "Follow the catalog")
            .reaches(Listed)
            .asks::<feed::FeedParams>()
            .gives::<feed::CatalogChanges>(200),
        get("/products", ReadCatalog, products::list_products, "List products")
            .asks::<PageParams>()
            .lists::<products::Product>(),
        get("/products/{product_id}", ReadCatalog, products::find_product, "Read a product")
            .gives::<products::Product>(200),
        patch("/products/{product_id}", ManageCatalog, products::edit_product, "Edit a product")
            .reaches(Everywhere)
            .takes::<products::ProductEdit>()
            .gives::<products::Product>(200),
        get("/variants", ReadCatalog, variants::list_variants, "List variants")
            .asks::<variants::VariantParams>()
            .lists::<variants::Variant>(),
        get("/variants/{variant_id}", ReadCatalog, variants::find_variant, "Read a variant")
            .gives::<variants::Variant>(200),
        patch("/variants/{variant_id}", ManageCatalog, variants::edit_variant, "Edit a variant")
            .reaches(Everywhere)
            .takes::<variants::VariantEdit>()
            .gives::<variants::Variant>(200),
        get("/variants/{variant_id}/prices", ReadCatalog, prices::list_prices, "List the price versions of a variant")
            .reaches(Listed)
            .asks::<PageParams>()
            .lists::<prices::Price>(),
        post("/promotions", ManagePromotions, promotions::create_promotion, "Make a promotion")
            .reaches(Everywhere)
            .takes::<promotions::NewPromotion>()
            .gives::<promotions::Promotion>(201),
        get("/promotions", ReadCatalog, promotions::list_promotions, "List promotions")
            .asks::<PageParams>()
            .lists::<promotions::Promotion>(),
        get("/promotions/{promotion_id}", ReadCatalog, promotions::find_promotion, "Read a promotion and what it gave")
            .gives::<promotions::PromotionWithUsage>(200),
        put("/promotions/{promotion_id}", ManagePromotions, promotions::replace_promotion, "Edit a promotion")
            .reaches(Everywhere)
            .takes::<promotions::NewPromotion>()
            .gives::<promotions::Promotion>(200),
        post("/promotions/{promotion_id}/coupons", ManagePromotions, promotions::create_coupons, "Make coupons")
            .in_bulk()
            .reaches(Everywhere)
            .takes::<promotions::NewCoupons>()
            .gives::<promotions::CouponsMade>(201),
        post("/prices", ManagePrices, prices::create_prices, "Add price versions")
            .reaches(Named)
            .takes::<prices::NewPrices>()
            .gives::<prices::StoredPrices>(201),
    ]
}

fn member_routes() -> Vec<Route> {
    vec![
        post("/members", CreateMembers, customers::create_member, "Make a member")
            .takes::<customers::NewMember>()
            .gives::<customers::Member>(201),
        post("/members/upsert", ImportMembers, customers::upsert_members, "Make the members that do not exist yet")
            .in_bulk()
            .reaches(Everywhere)
            .takes::<customers::MembersUpsert>()
            .gives::<customers::MembersStored>(200),
        get("/members", ReadMembers, customers::list_members, "List or look up members")
            .asks::<customers::MemberParams>()
            .lists::<customers::Member>(),
        get("/members/{customer_id}", ReadMembers, customers::find_member, "Read a member")
            .gives::<customers::Member>(200),
        post("/members/lookup", LookUpMembers, lookup::look_up, "Find members by e-mail address or telephone number")
            .takes::<lookup::Lookup>()
            .gives::<lookup::Found>(200),
        get("/members/{customer_id}/profile", ReadProfiles, profile::find_profile, "Read what is known of a member")
            .gives::<profile::MemberProfile>(200),
        patch("/members/{customer_id}/profile", EditProfiles, profile::edit_profile, "Edit what is known of a member")
            .takes::<profile::ProfileEdit>()
            .gives::<profile::MemberProfile>(200),
        get("/members/{customer_id}/export", ExportMembers, export::export_member, "Read everything about a member")
            .reaches(Everywhere)
            .gives::<export::MemberExport>(200),
        post("/members/{customer_id}/merge", MergeMembers, merge::merge_members, "Merge another member into this one")
            .reaches(Everywhere)
            .takes::<merge::NewMerge>()
            .gives::<merge::Merged>(200),
        post("/members/{customer_id}/erasure", EraseMembers, erasure::erase_member, "Erase the person behind a member")
            .reaches(Everywhere)
            .takes::<erasure::NewErasure>()
            .gives::<erasure::Erasure>(200),
        get("/members/{customer_id}/loyalty", ReadMembers, customers::find_loyalty, "Read a member's points")
            .gives::<customers::Loyalty>(200),
        get("/loyalty/programs", ReadCatalog, programs::list_programs, "List loyalty programs")
            .gives::<programs::LoyaltyPrograms>(200),
        get("/loyalty/programs/{program_id}", ReadCatalog, programs::find_program, "Read a loyalty program")
            .gives::<programs::LoyaltyProgram>(200),
        patch("/loyalty/programs/{program_id}", ManageLoyalty, programs::edit_program, "Edit a loyalty program")
            .reaches(Everywhere)
            .takes::<programs::LoyaltyProgramEdit>()
            .gives::<programs::LoyaltyProgram>(200),
    ]
}

fn stock_routes() -> Vec<Route> {
    vec![
        post("/stock/receipts", ManageStock, acts::create_receipt, "Book goods that arrived")
            .reaches(Named)
            .keyed()
            .takes::<acts::NewReceipt>()
            .gives::<acts::StockAct>(201),
        post("/stock/adjustments", AdjustStock, acts::create_adjustment, "Correct stock, with a reason")
            .reaches(Named)
            .keyed()
            .takes::<acts::NewAdjustment>()
            .gives::<acts::StockAct>(201),
        post("/stock/thresholds", ManageStock, acts::set_thresholds, "Set the limits below which stock is low")
            .reaches(Named)
            .keyed()
            .takes::<acts::NewThresholds>()
            .gives::<acts::StockAct>(201),
        post("/stock/dispositions", ManageStock, disposition::create_disposition, "Move goods on that were looked at")
            .reaches(Named)
            .keyed()
            .takes::<disposition::NewDisposition>()
            .gives::<acts::StockAct>(201),
        get("/stock/aside", ReadStock, disposition::list_aside, "List goods that came back and cannot be sold")
            .reaches(Listed)
            .asks::<disposition::AsideParams>()
            .lists::<disposition::AsideLevel>(),
        get("/stock", ReadStock, levels::list_stock, "List stock")
            .reaches(Listed)
            .asks::<levels::StockParams>()
            .lists::<levels::StockLevel>(),
        get("/stock/movements", ReadStock, levels::list_movements, "List movements of a location")
            .reaches(Named)
            .asks::<levels::MovementParams>()
            .lists::<levels::Movement>(),
    ]
}

fn sale_routes() -> Vec<Route> {
    vec![
        post("/quotes", Quote, sales::routes::create_quote, "Price a cart without selling it")
            .reaches(Named)
            .takes::<NewQuote>()
            .gives::<QuoteBody<'static>>(200),
        post("/sales", Sell, sales::routes::create_sale, "Commit a sale")
            .reaches(NamedByTerminal)
            .keyed()
            .takes::<NewSale>()
            .gives::<SaleBody<'static>>(201),
        get("/sales/{sale_id}/explain", ReadSales, sales::routes::explain_sale, "Explain every cent of a sale")
            .reaches(Object)
            .gives::<Explanation>(200),
        get("/sales", ReadSales, sales::routes::list_sales, "List sales")
            .reaches(Listed)
            .asks::<SaleParams>()
            .lists::<SaleBody<'static>>(),
        get("/sales/{sale_id}", ReadSales, sales::routes::find_sale, "Read a sale")
            .reaches(Object)
            .gives::<SaleBody<'static>>(200),
        get("/sales/{sale_id}/proof", ReadSales, audit::prove_sale, "Prove that a sale is in the signed books")
            .reaches(Object)
            .gives::<ReceiptProof>(200),
    ]
}

fn return_routes() -> Vec<Route> {
    vec![
        post("/refunds", Refund, returns::create_refund, "Take goods back for money")
            .reaches(NamedByTerminal)
            .keyed()
            .takes::<NewRefund>()
            .gives::<DocumentBody>(201),
        post("/refunds/preview", Refund, returns::preview_refund, "Compute a refund without making it")
            .reaches(Named)
            .takes::<NewRefundPreview>()
            .gives::<PreviewBody>(200),
        post("/exchanges", Refund, returns::create_exchange, "Take goods back and sell others in one document")
            .reaches(NamedByTerminal)
            .keyed()
            .takes::<NewExchange>()
            .gives::<DocumentBody>(201),
        post("/exchanges/preview", Refund, returns::preview_exchange, "Compute an exchange without making it")
            .reaches(Named)
            .takes::<NewExchangePreview>()
            .gives::<PreviewBody>(200),
        post("/voids", Void, returns::create_void, "Give a receipt number up")
            .reaches(NamedByTerminal)
            .keyed()
            .takes::<NewVoid>()
            .gives::<DocumentBody>(201),
        get("/documents", ReadSales, returns::list_documents, "List sales, refunds, exchanges and voids")
            .reaches(Listed)
            .asks::<DocumentParams>()
            .lists::<AnyDocument>(),
        get("/documents/{document_id}", ReadSales, returns::find_document, "Read a document of a till")
            .reaches(Object)
            .gives::<AnyDocument>(200),
        get("/documents/{document_id}/returnable", ReadSales, returns::find_returnable, "Read what may come back")
            .reaches(Object)
            .gives::<Returnable>(200),
        get(
            "/documents/{document_id}/proof",
            ReadSales,
            returns::prove_document,
            "Prove that a document is in the signed books",
        )
        .reaches(Object)
        .gives::<ReceiptProof>(200),
    ]
}

fn feed_routes() -> Vec<Route> {
    vec![
        get("/changes", ReadChanges, changes::list_changes, "Follow the documents and acts of a location")
            .reaches(Named)
            .asks::<changes::ChangeParams>()
            .gives::<changes::Changes>(200),
        get("/reports/kpis", ReadReports, reporting::list_kpis, "Read KPIs and how fresh they are")
            .reaches(Listed)
            .asks::<reporting::KpiParams>()
            .gives::<reporting::KpiReport>(200),
        get("/audit", ReadAudit, audit::list_audit, "Read who did or was refused what, newest first")
            .reaches(Listed)
            .asks::<AuditParams>()
            .lists::<AuditItem>(),
    ]
}

/// The public API: the table behind its guards, the OpenAPI document and its pages.
pub fn router(app: AppState) -> Router {
    let mut api = Router::new();
    for route in routes() {
        let is_sign_in = route.is_sign_in();
        let mut handler = match route.permission {
            Public => route.handler.layer(from_fn_with_state((app.clone(), route.effort), budgets::layer::by_address)),
            permission => {
                route.handler.layer(from_fn_with_state((app.clone(), permission, route.effort), guard::guard))
            }
        };
        if is_sign_in {
            handler = handler.layer(from_fn_with_state(route.path, budgets::layer::count_sign_ins));
        }
        api = api.route(route.path, handler);
    }
    let stamp = from_fn_with_state(app.proxies.clone(), context::stamp);
    let browsers = Arc::clone(&app.browsers);
    let mut router = Router::new().nest(BASE, api.with_state(app)).merge(openapi::pages());
    if let Some(cors) = browsers.cors() {
        router = router.layer(cors);
    }
    router.layer(stamp).layer(from_fn_with_state(browsers, browsers::protect))
}
