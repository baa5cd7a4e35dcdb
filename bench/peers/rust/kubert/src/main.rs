//! A candidate on kubert's lease. It renews every 2 s and may miss renewals for 13 s, as near to 15/10/2 as its two
//! settings come. (With its own defaults, 30 s and 1 s, it renews once in 29 s and bears one second of silence.)

use std::time::Duration;

use candidate::{asked_to_end, tell, Options};
use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kubert::lease::{ClaimParams, LeaseManager};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let api = kube::Api::<Lease>::namespaced(kube::Client::try_from(config)?, "default");
    let params = ClaimParams {
        lease_duration: Duration::from_secs(15),
        renew_grace_period: Duration::from_secs(13),
    };
    let manager = LeaseManager::init(api, &options.lease).await?;
    let (mut claims, task) = manager.spawn(&options.identity, params).await?;
    let ended = asked_to_end();
    tokio::pin!(ended);
    let mut before = None;
    loop {
        let claim = claims.borrow_and_update().clone();
        tell(claim.is_current_for(&options.identity), &claim.holder, &mut before);
        tokio::select! {
            changed = claims.changed() => if changed.is_err() { break },
            () = &mut ended => break,
        }
    }
    drop(claims); // its task vacates the lease when nobody listens
    task.await??;
    candidate::say("stopped", "");
    Ok(())
}
