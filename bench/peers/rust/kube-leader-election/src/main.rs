//! A candidate on kube-leader-election, with the 15 s and the try every 5 s of its documentation.

use std::time::Duration;

use candidate::{asked_to_end, tell, Options};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};

const TRY_EVERY: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let params = LeaseLockParams {
        holder_id: options.identity.clone(),
        lease_name: options.lease.clone(),
        lease_ttl: Duration::from_secs(15),
    };
    let lock = LeaseLock::new(kube::Client::try_from(config)?, "default", params);
    let ended = asked_to_end();
    tokio::pin!(ended);
    let mut before = None;
    loop {
        match lock.try_acquire_or_renew().await {
            Ok(LeaseLockResult::Acquired(_)) => tell(true, "", &mut before),
            Ok(LeaseLockResult::NotAcquired(lease)) => {
                let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
                tell(false, &holder, &mut before);
            }
            Err(error) => eprintln!("{error}"), // as its example does
        }
        tokio::select! {
            () = tokio::time::sleep(TRY_EVERY) => (),
            () = &mut ended => break,
        }
    }
    if before == Some(true) {
        lock.step_down().await?;
    }
    candidate::say("stopped", "");
    Ok(())
}
