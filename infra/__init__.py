"""The Pulumi program: typed settings, components that are highly available on two workers, and what a stack deploys."""
