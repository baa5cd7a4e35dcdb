//! A candidate on kube-coordinate with its defaults, 15/10/2 s. It does not release: its shutdown only ends its task.

use candidate::{asked_to_end, tell, Options};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube_coordinate::{Config, LeaderElector, LeaderState};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::from_args();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let settings = Config {
        name: options.lease,
        namespace: "default".into(),
        identity: options.identity,
        manager: "candidate".into(),
        ..Config::default()
    };
    let handle = LeaderElector::spawn(settings, kube::Client::try_from(config)?)?;
    let mut states = handle.state();
    let ended = asked_to_end();
    tokio::pin!(ended);
    let mut before = None;
    loop {
        match *states.borrow_and_update() {
            LeaderState::Leading => tell(true, "", &mut before),
            LeaderState::Following => tell(false, "", &mut before),
            LeaderState::Standby => (), // it does not know yet
        }
        tokio::select! {
            changed = states.changed() => changed?,
            () = &mut ended => break,
        }
    }
    handle.shutdown().await?;
    candidate::say("stopped", "");
    Ok(())
}
