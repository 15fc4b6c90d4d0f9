//! What every handler gets: the engine, the configuration, and the few things that live as long as the process.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use warren_engine::command::{EndOlderTokens, MakeFirstToken};
use warren_engine::housekeeping::Housekeeping;
use warren_engine::view::{FirstToken, HashParameters, SessionOfToken};
use warren_engine::{Engine, Options};

use crate::admin::register::Nonces;
use crate::client::space_hierarchy::Walks;
use crate::config::{Config, Durability, Registration};
use crate::data_dir;
use crate::errands::Errands;
use crate::federation::large_bodies::LargeBodies;
use crate::federation::out::Federation;
use crate::federation::out::places::Places;
use crate::http::ApiError;
use crate::http::rate::RateLimits;
use crate::http::request_id::RequestIds;
use crate::http::session::Session;
use crate::http::tls::Certificate;
use crate::http::uia;
use crate::media::Media;
use crate::metrics::Metrics;
use crate::outgoing::Outgoing;
use crate::password::Passwords;
use crate::recovery::Recovery;
use crate::worker::UnderWay;

/// Shared by all requests behind one `Arc`.
pub struct Context {
    pub config: Config,
    pub engine: Engine,
    pub metrics: Metrics,
    /// What the ids of requests come from, for all listeners.
    pub request_ids: RequestIds,
    pub rate_limits: RateLimits,
    pub passwords: Passwords,
    /// Interactive authentications under way, and the answers of those of a while ago.
    pub uia: uia::Sessions,
    /// Nonces of shared-secret registrations under way.
    pub nonces: Nonces,
    /// Walks through spaces that wait for their next page.
    pub space_walks: Walks,
    /// What was begun and is taken up again.
    pub errands: Errands,
    pub media: Media,
    /// The memory that large bodies of clients take.
    pub large_bodies: LargeBodies,
    /// Requests to other servers.
    pub federation: Federation,
    /// What is done about a database that takes no writes.
    pub recovery: Recovery,
    /// What the engine has done again and again.
    pub housekeeping: Housekeeping,
    /// The certificate of the https listeners, if there are any.
    pub certificate: Option<Arc<Certificate>>,
    /// Cancelled when the server is told to stop. Whoever waits long (`/sync`) also awaits
    /// `ctx.shutdown.cancelled()` and then answers at once with what it has, or that it has not.
    pub shutdown: CancellationToken,
    /// What runs by itself, for whose end the server waits then.
    pub under_way: UnderWay,
    /// When the server started.
    pub started: Instant,
}

/// The folder of the store inside the data folder.
pub const STORE_FOLDER: &str = "store";

/// Opens the engine on the embedded store, which others cannot look into and which is made if it is not there. Errors: a sentence
/// about why it cannot be opened.
pub fn open_engine(config: &Config) -> Result<Engine, String> {
    open_private(config, options(config))
}

/// The same where nothing is to be made. Errors: as above; there is no database.
pub fn open_existing_engine(config: &Config) -> Result<Engine, String> {
    open_private(config, existing(config))
}

fn open_private(config: &Config, options: Options) -> Result<Engine, String> {
    let folder = config.data_dir.join(STORE_FOLDER);
    data_dir::make_private(&folder)
        .map_err(|error| format!("cannot keep {} from others: {error}", folder.display()))?;
    open_with(config, options)
        .map_err(|error| format!("cannot open the database in {}: {error}", folder.display()))
}

/// What the operator is told of a database whose log could not be read to its end.
pub fn unreadable(engine: &Engine) -> Option<String> {
    let bytes = engine.unreadable_bytes();
    (bytes > 0).then(|| {
        format!(
            "at least {bytes} bytes of the database's log cannot be read, and what was written from there on is lost: if the server was \
             killed or lost its power, or the disk was full or its quota reached, it is what was being written then, and nobody was \
             told that it was; if it was none of these, the disk is damaged"
        )
    })
}

/// Opens the database of the configuration, where [`open_existing_engine`] has been before. Errors: those of
/// [`Engine::open_embedded`].
pub fn open_store(config: &Config) -> warren_engine::Result<Engine> {
    open_with(config, existing(config))
}

fn existing(config: &Config) -> Options {
    let mut options = options(config);
    options.create = false;
    options
}

fn open_with(config: &Config, options: Options) -> warren_engine::Result<Engine> {
    let folder = config.data_dir.join(STORE_FOLDER);
    Engine::open_embedded(&folder, config.memory_budget_bytes as usize, options)
}

fn options(config: &Config) -> Options {
    let mut options = Options::new(config.server_name.as_str());
    options.durability = match config.durability {
        Durability::Commit => warren_engine::Durability::Commit,
        Durability::Relaxed => warren_engine::Durability::Relaxed,
    };
    options.never_trust_keys = config.never_trust_keys.clone();
    options.old_signing_keys = config.old_signing_keys.iter().map(|key| key.0.clone()).collect();
    options.device_names_over_federation = config.device_names_over_federation;
    options.is_policy_server = config.policy_server;
    options.policy_lists = config.policy_lists.clone();
    options.wait = wait_apart;
    options
}

/// Waits without holding up the other tasks of the runtime's thread, if it is one.
fn wait_apart(work: &mut dyn FnMut()) {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Files that the configuration names must be readable from the start, not only when they are first needed.
fn check_files(config: &Config) -> Result<(), String> {
    let of_tls = config.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]);
    for file in of_tls.chain(&config.trusted_ca_files).chain(&config.appservice_files) {
        std::fs::File::open(file).map_err(|error| file.unusable(error))?;
    }
    Ok(())
}

impl Context {
    /// Errors: a sentence about what of the configuration cannot be used: a certificate, the metrics.
    pub fn new(config: Config) -> Result<Context, String> {
        check_files(&config)?;
        let engine = open_engine(&config)?;
        if let Some(unreadable) = unreadable(&engine) {
            tracing::warn!("{unreadable}");
        }
        Self::on(config, engine)
    }

    /// Over an engine that is open. Errors: as above.
    fn on(config: Config, engine: Engine) -> Result<Context, String> {
        if config.registration == Registration::Token {
            engine.write(MakeFirstToken).wait().map_err(|error| error.to_string())?;
        }
        // A row that cannot be read keeps its owner out, not everybody.
        let hash_parameters = engine.read(&HashParameters).unwrap_or_else(|error| {
            tracing::error!(%error, "an account cannot be read");
            Default::default()
        });
        let places = Places::now(config.memory_budget_bytes);
        let outgoing = Arc::new(Outgoing::new(&config, places.beside, places.questions)?);
        Ok(Context {
            federation: Federation::new(&config, &outgoing, places),
            metrics: Metrics::install(config.metrics_listen.is_some())?,
            request_ids: RequestIds::new(engine.now_ms()),
            rate_limits: RateLimits::new(config.rate_limits),
            passwords: Passwords::new(&config, &hash_parameters)?,
            uia: uia::Sessions::default(),
            nonces: Nonces::default(),
            space_walks: Walks::default(),
            errands: Errands::default(),
            certificate: config.tls.as_ref().map(Certificate::load).transpose()?.map(Arc::new),
            shutdown: CancellationToken::new(),
            under_way: UnderWay::default(),
            started: Instant::now(),
            engine,
            recovery: Recovery::default(),
            housekeeping: Housekeeping::default(),
            media: Media::open(&config)?,
            large_bodies: LargeBodies::new(config.memory_budget_bytes),
            config,
        })
    }

    /// With a database of its own in an empty folder, and all options as they are if nobody says anything.
    #[cfg(test)]
    pub fn of_tests(folder: &std::path::Path) -> Arc<Context> {
        Arc::new(Context::new(config_of_tests(folder)).expect("an empty folder can be opened"))
    }

    /// The session that an access token stands for.
    ///
    /// Errors: 401 if there is none.
    pub async fn session(&self, token: &str) -> Result<Arc<Session>, ApiError> {
        let session = self.engine.read(&SessionOfToken(token))?;
        let session = session.ok_or_else(|| ApiError::unknown_token("This access token is not known"))?;
        if session.expires_ms.is_some_and(|expires| expires <= self.engine.now_ms()) {
            return Err(ApiError::soft_logout("This access token has expired; refresh it or log in again"));
        }
        if session.ends_older {
            let user_id = session.user_id.to_string();
            self.engine.write(EndOlderTokens { user_id, access_token: token.to_owned() }).await?;
        }
        Ok(session)
    }

    /// The registration token of the first start, while nobody has an account.
    pub fn first_token(&self) -> Option<String> {
        match self.config.registration {
            Registration::Token => self.engine.read(&FirstToken).ok().flatten(),
            Registration::Closed | Registration::Open => None,
        }
    }

    /// A random text that nobody can guess: 192 bits.
    pub fn random_text(&self) -> String {
        self.engine.random_text(32)
    }
}

#[cfg(test)]
fn config_of_tests(folder: &std::path::Path) -> Config {
    crate::config::tests::from_text(&format!("data_dir = {folder:?}")).expect("it is valid")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use warren_engine::Clock;
    use warren_engine::account::{NewSession, Tokens};
    use warren_engine::command::{RefreshTokens, Register};

    use super::*;

    /// A clock that the test moves.
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn context(folder: &std::path::Path, clock: &Arc<Hand>) -> Context {
        let config = config_of_tests(folder);
        let mut options = options(&config);
        options.clock = clock.clone();
        let engine = open_with(&config, options).expect("an empty folder can be opened");
        Context::on(config, engine).expect("all options are as they are")
    }

    #[tokio::test]
    async fn an_access_token_ends_when_it_was_said_to_and_a_refresh_gives_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(Hand(AtomicU64::new(1_700_000_000_000)));
        let ctx = context(folder.path(), &clock);
        let session = NewSession { is_refreshable: true, ..NewSession::default() };
        let register =
            Register { localpart: "bilbo".to_owned(), session: Some(session), ..Register::default() };
        let bilbo = ctx.engine.write(register).await.expect("the name is free");
        let Tokens { access_token, refresh_token, expires_in_ms, .. } = bilbo.tokens.expect("logged in");
        let life_ms = expires_in_ms.expect("what can be refreshed ends");
        clock.0.fetch_add(life_ms - 1, Ordering::Relaxed);
        assert_eq!(ctx.session(&access_token).await.expect("still good").user_id.to_string(), bilbo.user_id);
        clock.0.fetch_add(1, Ordering::Relaxed);
        let refused = ctx.session(&access_token).await.expect_err("it has ended");
        assert_eq!((refused.status.as_u16(), refused.errcode), (401, "M_UNKNOWN_TOKEN"));
        // The device is kept: the client need not begin anew.
        assert_eq!(refused.extra.expect("more is told")["soft_logout"], true);
        let refresh = RefreshTokens {
            user_id: bilbo.user_id.clone(),
            refresh_token: refresh_token.expect("it was asked for"),
        };
        let refreshed = ctx.engine.write(refresh).await.expect("a refresh token does not end");
        assert_eq!(
            ctx.session(&refreshed.access_token).await.expect("good").user_id.to_string(),
            bilbo.user_id
        );
    }
}
